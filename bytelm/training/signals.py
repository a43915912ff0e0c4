"""SIGTERM and Ctrl-C end a run after the current step: checkpoint first, then exit.

What was heard is said at once (`NOTICE`), since a step or an evaluation may take a while. A second
Ctrl-C does not wait. Only the main thread may install handlers; elsewhere (a notebook's worker
thread) signals keep their usual meaning.
"""

import os
import signal
import threading
from types import FrameType

NOTICE = b"\nstopping after this step, to save it (Ctrl-C once more: at once, losing it)\n"


class StopSignals:
    """A context in which `received` tells which of the two signals came, if any.

    silent: whether to say nothing when one comes.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.received: int | None = None
        self._silent = silent
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
        if self.received is None and not self._silent:
            os.write(2, NOTICE)  # not print: the signal may have come in the middle of one
        self.received = number
