"""SIGTERM and Ctrl-C end a run after the current step: checkpoint first, then exit.

A second Ctrl-C does not wait. Only the main thread may install handlers; elsewhere (a notebook's
worker thread) signals keep their usual meaning.
"""

import signal
import threading
from types import FrameType


class StopSignals:
    """A context in which `received` tells which of the two signals came, if any."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
