"""What a boundary rule is: at which positions of a sequence a chunk starts.

A rule is an object with one definition for two uses. Given a stretch of positions and the small
state left by those before, it says where chunks start and returns the state after the stretch. The
parallel forward pass is one stretch from the empty state; decoding is one position at a time; a
prefill is anything between. So a rule cannot cut differently in decoding than in training.

Two things a reader may question. The first position of every document starts a chunk under every
rule: the code that reads chunks relies on it. And some rules know already at a byte that its chunk
ends with it (`Cuts.ends`), others only when they see the next byte; a pooled chunk can be read that
much earlier.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bytelm.nn.state import State


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """What rules are made of; each takes only what it needs.

    dim     width D of the positions (learned)
    stride  positions per chunk (fixed)
    after   byte values after which a chunk starts where none are given from outside (given)
    limit   most bytes per chunk, 0 = any number (words)
    """

    dim: int
    stride: int = 0
    after: tuple[int, ...] = ()
    limit: int = 0


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive positions of B rows, as a rule sees them.

    x           (B, L, D)  encoder outputs
    positions   (L,) or (B, L)  index of each position in its own document
    counts      (B,) positions of each row that are real, at least 1; None = all L
    ids         (B, L)  the symbols themselves; None where the positions are chunks
    boundaries  (B, L) bool, chunk starts given from outside; or None. (B, L + 1) says of the last
                position too whether its chunk ends there
    document_ids  (B, L) of packed documents; None = one document per row
    whole       these are all positions of the rows: the state after them is not wanted
    """

    x: Tensor
    positions: Tensor
    counts: Tensor | None = None
    ids: Tensor | None = None
    boundaries: Tensor | None = None
    document_ids: Tensor | None = None
    whole: bool = False


@dataclass(frozen=True)
class Cuts:
    """Where chunks start, and what more the rule knows about it.

    starts  (B, L) bool, false in padding
    p       (B, L) probabilities of a start (1 at the first position of a document) if they are
            learned, else None
    ends    (B, L) bool, false in padding: the chunk ends with this byte, whatever follows; None =
            the rule must see the next byte to know
    """

    starts: Tensor
    p: Tensor | None = None
    ends: Tensor | None = None


class BoundaryRule(nn.Module, ABC):
    """Where chunks start. Immutable but for the weights of a learned one."""

    reads_bytes: ClassVar[bool] = False  # so it exists only where positions are bytes

    def __init__(self, options: RuleOptions):
        super().__init__()
        self.options = options

    def cut(self, stretch: Stretch, state: State) -> tuple[Cuts, State]:
        """Chunk starts in the stretch that follows `state`, and the state after it."""
        found, after = self.decide(stretch, state)
        first = stretch.positions == 0
        p = found.p
        if p is not None:
            p = torch.where(first, torch.ones_like(p), p)
        shape, ends = stretch.x.shape[:2], found.ends
        starts = (found.starts | first).expand(shape)
        ends = None if ends is None else ends.expand(shape)
        if stretch.counts is not None:
            offset = torch.arange(shape[1], device=starts.device)
            valid = offset < stretch.counts[:, None]
            starts, ends = starts & valid, None if ends is None else ends & valid
        return Cuts(starts, p, ends), after

    @abstractmethod
    def init_state(self, batch_size: int, like: Tensor) -> State:
        """The state before the first position, on the device of `like`; floating-point parts have
        its dtype."""

    @abstractmethod
    def decide(self, stretch: Stretch, state: Any) -> tuple[Cuts, State]:
        """`cut` before first positions are forced and padding is left out; starts and ends may be
        (L,)."""


@dataclass(frozen=True)
class NoState(State):
    """The state of a rule that looks at nothing but the positions."""
