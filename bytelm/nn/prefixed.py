"""Rows in which every word has prefix slots in front of its bytes, packed.

With p slots per word, a row of L bytes cut into C words becomes one row of L + p C positions, in
which the slots stand in front of each word's own bytes: nothing is padded to the longest word, and
layers keep words apart as they keep packed documents apart (`nn.segments`), so that positions count
from the first slot of each word. Learn Your Tokens reads a word's vectors from such slots behind
its encoder, and writes there what its decoder is to know.

Shape letters: B rows, L bytes, C words, S = L + p C positions, D width.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bytelm.nn.chunking import ChunkPlan, take
from bytelm.nn.segments import Segments


@dataclass(frozen=True)
class Prefixed:
    """The places of p slots per word and of all bytes in a packed row.

    plan     the words
    slots    p
    lengths  (B,) bytes of each row that are real; None = all

    >>> plan = ChunkPlan(torch.tensor([[True, False, True]]))
    >>> rows = Prefixed(plan, slots=1)
    >>> rows.bytes_at.tolist(), rows.slots_at.tolist()
    ([[1, 2, 4]], [[0, 3]])
    """

    plan: ChunkPlan
    slots: int
    lengths: Tensor | None = None

    @cached_property
    def bytes_at(self) -> Tensor:
        """(B, L) the place of each byte; padding stands behind all words."""
        index = torch.arange(self.plan.starts.shape[1], device=self.plan.starts.device)
        return index + self.slots * (self.plan.feeds + 1)

    @cached_property
    def slots_at(self) -> Tensor:
        """(B, p C) the place of each slot; those past a row's count stand at the row's end."""
        plan, p = self.plan, self.slots
        word = torch.arange(plan.width, device=plan.starts.device)
        L = plan.starts.shape[1]
        first = torch.where(word < plan.counts[:, None], plan.first, L) + p * word
        offset = torch.arange(p, device=first.device)
        return (first[..., None] + offset).flatten(1)

    @cached_property
    def segments(self) -> Segments:
        """Every word with its slots as a document of its own."""
        feeds, C = self.plan.feeds, self.plan.width
        if self.lengths is not None:
            index = torch.arange(feeds.shape[1], device=feeds.device)
            feeds = torch.where(index < self.lengths[:, None], feeds, C)
        word = torch.arange(C, device=feeds.device).repeat_interleave(self.slots)
        words = torch.where(word < self.plan.counts[:, None], word, C)
        ids = take(torch.cat((feeds, words), dim=1), self._source)
        return Segments(ids.shape[1], None, ids)

    def pack(self, x_BLD: Tensor, slots_BCpD: Tensor) -> Tensor:
        """(B, S, D) from vectors of the bytes and of each word's slots (B, C, p, D)."""
        slots = slots_BCpD.flatten(1, 2).to(x_BLD.dtype)
        return take(torch.cat((x_BLD, slots), dim=1), self._source)

    def bytes_of(self, y_BSD: Tensor) -> Tensor:
        """(B, L, D) what stands at the bytes."""
        return take(y_BSD, self.bytes_at)

    def slots_of(self, y_BSD: Tensor) -> Tensor:
        """(B, C, p, D) what stands at each word's slots; arbitrary past a row's count."""
        return take(y_BSD, self.slots_at).unflatten(1, (self.plan.width, self.slots))

    @cached_property
    def _source(self) -> Tensor:
        """(B, S) which of the bytes and then slots stands at each place."""
        at = torch.cat((self.bytes_at, self.slots_at), dim=1)
        index = torch.arange(at.shape[1], device=at.device).expand_as(at)
        return torch.empty_like(at).scatter_(1, at, index)
