"""One text of a `DecoderState`, and one window of a text that is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from bytelm.lm.protocol import BatchState, ByteLM, Context
from bytelm.lm.running_logprob import RunningLogProb, Unscored
from bytelm.lm.sliding_context import SlidingContext
from bytelm.vocab import END


@dataclass(frozen=True, slots=True)
class Row:
    """One text: ids `head` (BOS and pinned context), then `text`; its first `lead` bytes are
    context too. Of a sequence-to-sequence model the context is the source instead.

    unread   the end of `text` that the model's state has not read yet (`DecoderReadAhead`)
    """

    context: Context
    head: tuple[int, ...]
    sliding: SlidingContext
    text: bytes
    lead: int
    running: RunningLogProb = RunningLogProb()
    impossible: bool = False  # the text has probability zero
    unread: bytes = b""

    @property
    def start(self) -> int:
        return self.sliding.start(len(self.text))

    @property
    def slides(self) -> bool:
        """Whether the context begins elsewhere after one more byte."""
        return self.sliding.start(len(self.text) + 1) != self.start

    def readable_ahead(self, piece: bytes) -> bytes:
        """As much of a piece as is read in one context: one byte where it slides before that."""
        return piece[: 1 if self.slides else self.sliding.room(len(self.text) + 1)]

    def window_ids(self) -> list[int]:
        """The ids of the whole present context."""
        return [*self.head, *self.text[self.start :]]

    def append(self, before: BatchState, b: int, piece: bytes, logprob: float) -> Row:
        """This row, number b of the state `before`, after `piece`; logprob: of its first byte."""
        if len(piece) == 1:
            running = self.running.add(logprob)
            return replace(self, text=self.text + piece, running=running, unread=b"")
        return self.append_unscored(before._lm, piece, before, b)

    def append_unscored(
        self, lm: ByteLM, piece: bytes, before: BatchState | None = None, b: int = 0
    ) -> Row:
        """This row after `piece`, whose log P is computed when somebody asks: from row b of the
        state `before`, which holds what stands before it, or with the whole text."""
        if not piece:
            return self
        text = self.text + piece
        start = len(self.text) - self.lead
        block = Unscored(lm, self.context, text[self.lead :], start, before, b)
        return replace(self, text=text, running=self.running.defer(block), unread=b"")

    def settle(self, piece: bytes, logprob: float, *, impossible: bool, unread: bytes) -> Row:
        """This row after `piece` of that log P."""
        running = self.running.add(logprob) if piece else self.running
        gone = self.impossible or impossible
        return replace(
            self, text=self.text + piece, running=running, impossible=gone, unread=unread
        )


@dataclass(frozen=True, slots=True)
class Window:
    """One forward's row: positions lo..hi of row.text are predicted from s on, into `out`."""

    row: Row
    s: int
    lo: int
    hi: int
    out: Tensor  # (hi - lo + 1,) float64

    @property
    def width(self) -> int:
        return len(self.row.head) + self.hi - self.s

    def ids(self) -> list[int]:
        return [*self.row.head, *self.row.text[self.s : self.hi]]

    def targets(self) -> list[int]:
        symbols = [*self.row.text[self.lo : self.hi + 1], END]
        return symbols[: self.hi - self.lo + 1]
