"""Options that several commands share, declared once as the fields of a dataclass."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

Command = Callable[..., None]


def with_option_group(command: Command, *, parameter: str, group: type[Any]) -> Command:
    """The command with one option per field of `group`, a dataclass, in place of its `parameter`,
    which it gets as a `group`."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != parameter]
    hints = get_type_hints(group, include_extras=True)
    names = [field.name for field in fields(group)]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        options = group(**{name: values.pop(name) for name in names})
        command(**values, **{parameter: options})

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called
