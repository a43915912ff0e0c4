"""Poolers: how the vectors of a chunk's bytes become the chunk's one vector.

Pooling decides when a chunk may be read, and says so in `delay`: a chunk that is represented by its
first byte can be read from that byte on (select-at-boundary: H-Net, SpaceByte, AU-Net); one that
pools all its bytes only when it has closed, which is one chunk later (pool-when-closed: BLT,
MegaByte, Learn Your Tokens). `ChunkPlan` turns the delay into what each byte reads.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bytelm.nn.chunking import ChunkPlan


class Pooler(ABC):
    """Chunk vectors from byte vectors, and by how many chunks reading lags behind feeding."""

    delay: ClassVar[int]

    @abstractmethod
    def pool(self, x_BLD: Tensor, plan: ChunkPlan) -> Tensor:
        """(B, L, D) -> (B, C, D); slots past a row's count hold arbitrary values."""


class FirstByte(Pooler):
    """The vector of the chunk's first byte (H-Net's selection)."""

    delay = 0

    def pool(self, x_BLD: Tensor, plan: ChunkPlan) -> Tensor:
        return plan.select(x_BLD)


class Mean(Pooler):
    """The mean over the chunk's bytes, known once the chunk has closed."""

    delay = 1

    def pool(self, x_BLD: Tensor, plan: ChunkPlan) -> Tensor:
        sums = plan.sum(x_BLD)
        return sums / plan.sum(torch.ones_like(x_BLD[..., :1])).clamp(min=1)
