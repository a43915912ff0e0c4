"""The running log P of a row, computed only when somebody asks.

A state must know log P of the bytes it holds, but generation feeds long prompts and never asks.
Models that get bytes in one block (a cached prefill gives only the last distribution) therefore
note the block as `Unscored` and score it on the first question; the answer is kept and shared by
every state descended from that one. A short block after a long text is scored byte by byte from the
state before it, so that feeding and asking in turns costs no pass over the whole text each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bytelm.lm.protocol import BatchState, ByteLM, Context

# A step of a model costs about as much as scoring this many positions of a known text at once.
POSITIONS_PER_STEP = 16


def block_scores(
    before: BatchState, row: int, piece: bytes, length: int, whole: Callable[[], Tensor]
) -> Tensor:
    """(n,) float64 log P of each byte of `piece`, which follows row `row` of the state `before`.

    length: bytes of the whole text, the piece included; whole(): the same scores by one pass over
    it, taken where that is cheaper than stepping.
    """
    if len(piece) * POSITIONS_PER_STEP >= length:
        return whole()
    state, scores = before.select([row]), []
    for i, byte in enumerate(piece):
        scores.append(state.logprobs()[0, byte].cpu().double())
        if i + 1 < len(piece):
            state = state.feed([piece[i : i + 1]])
    return torch.stack(scores)


@dataclass(slots=True, eq=False)
class Unscored:
    """The bytes data[start:] after `context` and data[:start], not scored until somebody asks.

    before   a state whose row `row` holds data[:start]; None: the whole text is scored at once
    """

    lm: ByteLM
    context: Context
    data: bytes
    start: int
    before: BatchState | None = None
    row: int = 0
    value: float | None = None  # log P in nats of data[start:] given all before it

    def score(self) -> float:
        """`value`, computed now."""
        piece = self.data[self.start :]
        if self.before is None:
            scores = self._whole()
        else:
            scores = block_scores(self.before, self.row, piece, len(self.data), self._whole)
        self.settle(float(scores.sum()))
        assert self.value is not None
        return self.value

    def settle(self, value: float) -> None:
        """Note the value, and let the state go that it could have been computed from."""
        self.value, self.before = value, None

    def _whole(self) -> Tensor:
        return self.lm.score(self.data, context=self.context)[self.start :]


@dataclass(frozen=True, slots=True)
class RunningLogProb:
    """log P of one row, immutable: a known part in nats and blocks still to be scored, which are
    pieces of one text, oldest first.

    >>> RunningLogProb().add(-1.5).add(-0.5).total
    -2.0
    """

    known: float = 0.0
    unscored: tuple[Unscored, ...] = ()

    def add(self, logprob: float) -> RunningLogProb:
        """With one more byte of known log P."""
        settled = self._settled()
        return replace(settled, known=settled.known + logprob)

    def defer(self, block: Unscored) -> RunningLogProb:
        """With a block whose score nobody has asked for yet. Only the first of several keeps the
        state before it alive: they will be scored together."""
        settled = self._settled()
        if settled.unscored:
            block.before = None
        return replace(settled, unscored=(*settled.unscored, block))

    @property
    def total(self) -> float:
        """log P in nats of everything fed."""
        pending = [block for block in self.unscored if block.value is None]
        if len(pending) > 1:
            last = pending[-1]
            scores = last.lm.score(last.data, context=last.context)
            for block in pending:
                block.settle(float(scores[block.start : len(block.data)].sum()))
        values = (b.score() if b.value is None else b.value for b in self.unscored)
        return self.known + sum(values)

    def _settled(self) -> RunningLogProb:
        """The same with the blocks that were scored meanwhile in the known part."""
        if all(block.value is None for block in self.unscored):
            return self
        values = [block.value for block in self.unscored if block.value is not None]
        left = tuple(block for block in self.unscored if block.value is None)
        return RunningLogProb(self.known + math.fsum(values), left)


def check_pieces(data: Sequence[bytes], rows: int) -> None:
    """`feed` takes one piece of bytes per row."""
    assert len(data) == rows, f"feed got {len(data)} pieces for {rows} rows"


def first_byte_logprobs(logprobs_BO: Tensor, data: Sequence[bytes]) -> list[float]:
    """log P of the first byte of each piece; an empty piece gives a number without meaning."""
    first_B = torch.tensor([piece[0] if piece else 0 for piece in data])
    first_B = first_B.to(logprobs_BO.device)
    return logprobs_BO.gather(1, first_B[:, None])[:, 0].cpu().double().tolist()
