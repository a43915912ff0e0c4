"""Hashed n-gram tables: a trained vector for the last n symbols, added to the byte's own.

What a byte model learns first are the frequencies of short strings, and a table is the shortest way
there: one look-up instead of layers that must first learn to compare neighbours (BLT, Pagnoni et
al. 2024, section 3.2.1). All sizes share one table of `rows` rows each; strings that collide share
a row. A table costs memory and nearly no operations. Rows start at zero, so an untrained table
changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.nn.conv import latest_inputs
from bytelm.nn.state import State

_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, near 2^64 / golden ratio: Knuth's multiplier
_FOLD = 32  # the high half of a product is the well-mixed one
BEFORE = -1  # the symbol before the first of a document


@dataclass(frozen=True)
class NGramState(State):
    """Decode state of a model with n-gram tables: the latest ids (B, K) and the body's own."""

    tail: Tensor
    body: State


class NGramTables(nn.Module):
    """ids (B, L) -> (B, L, D): the sum over `sizes` of the row of the n-gram that ends there."""

    def __init__(self, sizes: Sequence[int], rows: int, dim: int):
        super().__init__()
        self.sizes, self.rows = tuple(sizes), rows
        self.table = nn.Embedding(len(self.sizes) * rows, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """All rows zero."""
        nn.init.zeros_(self.table.weight)

    def forward(
        self, ids_BL: Tensor, tail_BK: Tensor, document_ids: Tensor | None = None
    ) -> Tensor:
        """tail (B, K): the symbols before the first column (`empty_tail` at the start of a text).
        Symbols of another document count as `BEFORE`."""
        rows = self.rows_of(ids_BL, tail_BK, document_ids)
        return self.table(rows).sum(-2)

    def empty_tail(self, batch_size: int) -> Tensor:
        """(B, K): what stands before the first symbol of a text."""
        shape = (batch_size, max(self.sizes) - 1)
        return torch.full(shape, BEFORE, device=self.table.weight.device)

    def new_tail(self, tail_BK: Tensor, ids_BL: Tensor, counts: Tensor | None) -> Tensor:
        """The tail after counts[b] (None = all) of the ids."""
        return latest_inputs(tail_BK[..., None], ids_BL[..., None], counts)[..., 0]

    def rows_of(self, ids_BL: Tensor, tail_BK: Tensor, document_ids: Tensor | None) -> Tensor:
        """(B, L, sizes) rows of the table."""
        K, L = tail_BK.shape[1], ids_BL.shape[1]
        padded = torch.cat((tail_BK, ids_BL), dim=1)
        documents = None
        if document_ids is not None:
            first = document_ids[:, :1].expand(-1, K)
            documents = torch.cat((first, document_ids), dim=1)
        hashed = torch.zeros_like(ids_BL)
        found: list[Tensor] = []
        for k in range(K + 1):
            at = slice(K - k, K - k + L)
            symbol = padded[:, at]
            if documents is not None:
                symbol = symbol.masked_fill(documents[:, at] != documents[:, K:], BEFORE)
            hashed = (hashed + symbol + 2) * _FACTOR
            hashed = hashed ^ ((hashed >> _FOLD) & 0xFFFFFFFF)
            if k + 1 in self.sizes:
                found.append(hashed % self.rows + self.rows * len(found))
        return torch.stack(found, dim=-1)
