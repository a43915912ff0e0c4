"""`SlidingContext`: how a text longer than a model's context is read, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bytelm.errors import BytelmError


@dataclass(frozen=True, slots=True)
class SlidingContext:
    """How far a context goes back: at most `window` bytes, dropped `stride` at a time.

    >>> sliding = SlidingContext(window=4, stride=2)
    >>> [sliding.start(t) for t in range(8)]
    [0, 0, 0, 0, 0, 2, 2, 4]
    """

    window: int
    stride: int

    @classmethod
    def of(cls, window: int, stride: int | None = None) -> Self:
        """As a user asks for it: `stride` is half the window by default.

        `BytelmError` for a window below one byte, or a stride outside 1 to `window`.
        """
        if window < 1:
            raise BytelmError(f"window must be at least 1 byte, not {window}")
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window:
            raise BytelmError(f"stride must be between 1 and the window {window}, not {stride}")
        return cls(window, stride)

    def behind(self, pinned: int) -> Self:
        """What is left of the window behind `pinned` symbols that never slide out.

        `BytelmError` if that is nothing.
        """
        room = self.window - pinned
        if room < 1:
            raise BytelmError(
                f"the context has {pinned} symbols and the model reads {self.window} bytes: "
                "shorten the context (for infilling, the prefix or the suffix)"
            )
        return type(self)(room, min(self.stride, max(1, room // 2)))

    def start(self, position: int) -> int:
        """s, the first byte of the context from which byte `position` is predicted."""
        overflow = max(0, position - self.window)
        return -(-overflow // self.stride) * self.stride

    def room(self, position: int) -> int:
        """How many bytes from `position` on are predicted from the same context."""
        return self.start(position) + self.window - position + 1

    def segments(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """(s, lo, hi): positions lo..hi (inclusive) are predicted from contexts beginning at s.

        Together they cover first..last, each position once.
        """
        lo = first
        while lo <= last:
            s = self.start(lo)
            hi = min(last, s + self.window)
            yield s, lo, hi
            lo = hi + 1
