"""Chat templates: programs of whoever made the model, which are given strings and lists, and end.

Jinja's sandbox gives them none of Python's objects, but bounds neither time nor memory. Here a
template has so many steps, its numbers so many digits and, where the system can bound it, all that
it makes so much memory.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bytelm.damage import reason
from bytelm.errors import BytelmError

_STEPS = 1_000_000  # lines of the compiled template that are run; real ones take thousands
_LARGEST_NUMBER = 1 << 256
_LONGEST_TEXT = 1 << 24  # characters of a text or members of a list that is repeated
_MEMORY = 1 << 30  # bytes of address space


def render(template: str, **values: Any) -> str:
    """What a template writes; `BytelmError` if it fails, or does not end within the bounds.

    >>> render("{{ name }}{% for i in range(3) %}{{ i }}{% endfor %}", name="n")
    'n012'
    """

    def refuse(why: str) -> None:
        raise TemplateError(why)

    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    del sandbox.globals["lipsum"]  # writes as much as it is asked to
    try:
        made = sandbox.from_string(template, globals={"raise_exception": refuse})
        with _bounded_memory(), _bounded_steps():
            return made.render(**values)
    except Exception as error:  # a mistaken template makes Python raise nearly every type
        raise BytelmError(f"the chat template fails: {reason(error)}") from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Bounds what a single multiplication or power can make."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            large = max(abs(left), abs(right)) > _LARGEST_NUMBER
            if large or (operator == "**" and abs(right) > 256):
                raise TemplateError("it computes too large a number")
        elif operator == "*":
            sizes = [abs(x) if isinstance(x, int) else len(x) for x in (left, right)]
            if sizes[0] * sizes[1] > _LONGEST_TEXT:
                raise TemplateError("it makes too long a text")
        return super().call_binop(context, operator, left, right)


@contextmanager
def _bounded_steps() -> Iterator[None]:
    """Raise `TemplateError` in a template of this thread that runs more than `_STEPS` lines."""
    left = _STEPS

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != "<template>":
            return None
        left -= 1
        if left < 0:
            raise TemplateError(f"it does not end within {_STEPS:,} steps")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Bound the memory of this process by what it has and `_MEMORY`, where there is /proc."""
    statistics = Path("/proc/self/statm")
    if not statistics.is_file():
        yield
        return
    import resource

    used = int(statistics.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = used + _MEMORY
    if soft != resource.RLIM_INFINITY:
        bound = min(bound, soft)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
