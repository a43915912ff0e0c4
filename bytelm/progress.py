"""What a person sees of long work: a bar on a terminal, lines now and then in a log file.

Everything goes to stderr; stdout stays free for results. Work of less than `QUIET_SECONDS` shows
nothing. Libraries do not print: they call a function with how far they are, and who shows it is the
command line or the training loop, by way of this one class.
"""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bytelm.errors import printable

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0


class ProgressDisplay:
    """One line of progress, and messages that stay above it.

    silent   show nothing at all
    quiet    seconds before anything is shown
    clock    seconds that pass, for tests

    >>> times = iter([0.0, 1.0, 3.0, 4.0, 14.0])
    >>> display = ProgressDisplay(clock=lambda: next(times), write=print, console=Console(width=80))
    >>> for done in (0.1, 0.2, 0.3, 0.4): display.show(f"{done:.0%}", done)
    20%
    40%
    """

    def __init__(
        self,
        *,
        silent: bool = False,
        quiet: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
        console: Console | None = None,
    ):
        self._silent, self._clock = silent, clock
        self._write = write or _to_stderr
        self._console = console or Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._next = clock() + quiet

    def show(self, text: str, done: float | None = None) -> None:
        """How far the work is. done: 0 to 1; None: how much is to come is not known."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=done or 0.0)
        elif not self._silent and (now := self._clock()) >= self._next:
            if self._console.is_terminal:
                self._open_bar(text, done)
            else:
                self._next = now + LINE_SECONDS
                self._write(text)

    def message(self, text: str) -> None:
        """A line that stays; what the terminal could obey, in a file's name say, is escaped."""
        text = printable(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self._silent:
            self._write(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._silent = True

    def _open_bar(self, text: str, done: float | None) -> None:
        column = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(bar_width=24), column, TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console, transient=True)
        total = None if done is None else 1.0
        self._task = self._bar.add_task(text, total=total)
        self._bar.update(self._task, completed=done or 0.0)
        self._bar.start()


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
