"""`Memory`: what an encoder wrote about its sources, as an immutable state with rows of any length.

A decoder reads it and never writes to it, so selecting, joining and putting back rows are plain
indexing; only the width M may differ between two memories, and the narrower one is padded. Padding
is never read, so it can hold anything that is finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.nn.state import State


@dataclass(frozen=True)
class Memory(State):
    """values (B, M, D), of which row b has lengths[b] >= 0 valid positions."""

    values: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, M) bool."""
        index = torch.arange(self.values.shape[1], device=self.lengths.device)
        return index < self.lengths[:, None]

    def scatter(self, rows: Tensor, part: Self) -> Self:
        old, new = _padded([self.values, part.values])
        lengths = self.lengths.index_copy(0, rows, part.lengths)
        return type(self)(old.index_copy(0, rows, new), lengths)

    def join(self, others: Sequence[Self]) -> Self:
        parts = [self, *others]
        values = torch.cat(_padded([part.values for part in parts]))
        return type(self)(values, torch.cat([part.lengths for part in parts]))


def _padded(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (B, M, D) with zeros behind, so that all have the M of the longest."""
    longest = max(value.shape[1] for value in values)
    return [F.pad(value, (0, 0, 0, longest - value.shape[1])) for value in values]
