"""Who wants to know how far a model is with scoring: a callback around, not through, every call.

A text may take minutes, inside an ensemble or a converter; an argument would have to go through
every implementation of `ByteLM`, those of other packages included. So whoever waits says so for a
block of code, and the loops that take long report the bytes they have scored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_watcher: ContextVar[Callable[[float], None] | None] = ContextVar("_watcher", default=None)


@contextmanager
def watch_scored(report: Callable[[float], None]) -> Iterator[None]:
    """Call `report` with the number of bytes that were scored since its last call.

    >>> with watch_scored(print): scored(3)
    3
    >>> scored(3)
    """
    token = _watcher.set(report)
    try:
        yield
    finally:
        _watcher.reset(token)


def scored(count: float) -> None:
    """Tell whoever watches that `count` more bytes have been scored."""
    if (report := _watcher.get()) is not None:
        report(count)


@contextmanager
def one_of(parts: int) -> Iterator[None]:
    """What is scored in this block is one of `parts` models that read the same bytes.

    >>> with watch_scored(print), one_of(2): scored(3)
    1.5
    """
    outer = _watcher.get()
    if outer is None:
        yield
        return
    with watch_scored(lambda count: outer(count / parts)):
        yield
