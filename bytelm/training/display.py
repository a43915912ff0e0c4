"""What the person at the terminal sees while training: a progress bar, or lines in a log file.

Everything goes to stderr; stdout stays free for results. On a terminal it is one live bar; else a
line at most every `LINE_SECONDS`.
"""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0
Figure = tuple[str, float]  # name and value
_SMOOTHING = 0.9  # weight of the past in the figure that is shown


class Display:
    """Progress of one run; silent on every rank but the first."""

    def __init__(self, *, silent: bool = False):
        self._silent = silent
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._shown: float | None = None
        self._last_line = -LINE_SECONDS
        if self._console.is_terminal and not silent:
            text = TextColumn("{task.description}", markup=False)
            self._bar = Progress(BarColumn(bar_width=24), text, console=self._console)
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()

    def update(
        self, *, step: int, done: float, headline: Figure, speed: float, seconds: float
    ) -> None:
        """Show a training step. done: 0 to 1; speed: bytes/s; seconds: used so far."""
        if self._silent:
            return
        name, value = headline
        old = value if self._shown is None else self._shown
        self._shown = _SMOOTHING * old + (1 - _SMOOTHING) * value
        text = (
            f"{done:4.0%}  step {step}  {self._shown:.3f} {spelled(name)}  {_amount(speed)}B/s  "
            f"ETA {_clock(seconds / done - seconds if done else 0)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
        else:
            self._write_now_and_then(text)

    def evaluating(self, done: int, total: int) -> None:
        """Show how far an evaluation is, in windows."""
        text = f"evaluating, {done:,} of {total:,} windows"
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif not self._silent:
            self._write_now_and_then(text)

    def message(self, text: str) -> None:
        """A line that stays: an evaluation, an alarm, a checkpoint."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self._silent:
            self._write(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _write_now_and_then(self, text: str) -> None:
        if time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._write(text)

    def _write(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def spelled(name: str) -> str:
    """A figure's name as people write it.

    >>> spelled("bits_per_byte"), spelled("macro_f1")
    ('bits/byte', 'macro f1')
    """
    return name.replace("_per_", "/").replace("_", " ")


def _amount(number: float) -> str:
    """Three digits and a decimal prefix.

    >>> _amount(12345.0)
    '12.3 k'
    """
    power = sum(number >= 1000**i for i in (1, 2, 3))
    return f"{number / 1000**power:.3g} {'kMG'[power - 1] if power else ''}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
