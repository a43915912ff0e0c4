"""The running log P of a row, computed only when somebody asks.

A state must know log P of the bytes it holds, but generation feeds long prompts and never asks.
Models that get bytes in one block (a cached prefill gives only the last distribution) therefore
note the block as `Unscored` and score it in one pass on the first question; the answer is kept and
shared by every state descended from that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bytelm.lm.protocol import ByteLM, Context


@dataclass(frozen=True)
class Unscored:
    """The bytes data[start:] after `context` and data[:start], not scored yet."""

    lm: ByteLM
    context: Context
    data: bytes
    start: int

    @cached_property
    def value(self) -> float:
        """log P in nats of data[start:] given all before it."""
        return float(self.lm.score(self.data, context=self.context)[self.start :].sum())


@dataclass(frozen=True, slots=True)
class RunningLogProb:
    """log P of one row, immutable: a known part in nats and blocks still to be scored.

    >>> RunningLogProb().add(-1.5).add(-0.5).total
    -2.0
    """

    known: float = 0.0
    unscored: tuple[Unscored, ...] = ()

    def add(self, logprob: float) -> RunningLogProb:
        """With one more byte of known log P."""
        return replace(self, known=self.known + logprob)

    def defer(self, block: Unscored) -> RunningLogProb:
        """With a block whose score nobody has asked for yet."""
        return replace(self, unscored=(*self.unscored, block))

    @property
    def total(self) -> float:
        """log P in nats of everything fed."""
        return self.known + sum(block.value for block in self.unscored)


def check_pieces(data: Sequence[bytes], rows: int) -> None:
    """`feed` takes one piece of bytes per row."""
    assert len(data) == rows, f"feed got {len(data)} pieces for {rows} rows"


def first_byte_logprobs(logprobs_BO: Tensor, data: Sequence[bytes]) -> list[float]:
    """log P of the first byte of each piece; an empty piece gives a number without meaning."""
    first_B = torch.tensor([piece[0] if piece else 0 for piece in data])
    first_B = first_B.to(logprobs_BO.device)
    return logprobs_BO.gather(1, first_B[:, None])[:, 0].cpu().double().tolist()
