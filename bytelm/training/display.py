"""What the person at the terminal sees while training: figures of each step, and messages.

How they get there, as a live bar or as lines in a log file, is `bytelm.progress`.
"""

from bytelm.progress import ProgressDisplay

Figure = tuple[str, float]  # name and value
_SMOOTHING = 0.9  # weight of the past in the figure that is shown


class Display:
    """Progress of one run; silent on every rank but the first."""

    def __init__(self, *, silent: bool = False):
        self._display = ProgressDisplay(silent=silent, quiet=0.0)
        self._shown: float | None = None
        self._done = 0.0

    def update(
        self, *, step: int, done: float, headline: Figure, speed: float, seconds: float
    ) -> None:
        """Show a training step. done: 0 to 1; speed: bytes/s; seconds: used so far."""
        name, value = headline
        old = value if self._shown is None else self._shown
        self._shown = _SMOOTHING * old + (1 - _SMOOTHING) * value
        self._done = done
        self._display.show(
            f"{done:4.0%}  step {step}  {self._shown:.3f} {spelled(name)}  {_amount(speed)}B/s  "
            f"ETA {_clock(seconds / done - seconds if done else 0)}",
            done,
        )

    def evaluating(self, done: int, total: int) -> None:
        """Show how far an evaluation is, in windows."""
        self._display.show(f"evaluating, {done:,} of {total:,} windows", self._done)

    def message(self, text: str) -> None:
        """A line that stays: an evaluation, an alarm, a checkpoint."""
        self._display.message(text)

    def close(self) -> None:
        """End the bar."""
        self._display.close()


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
