"""Hashed n-gram tables: a trained vector for the last n symbols, added to the byte's own.

What a byte model learns first are the frequencies of short strings, and a table is the shortest way
there: one look-up instead of layers that must first learn to compare neighbours (BLT, Pagnoni et
al. 2024, section 3.2.1). All sizes share one table of `rows` rows each; strings that collide share
a row. A table costs memory and nearly no operations. Rows start at zero, so an untrained table
changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.nn.conv import latest_inputs
from bytelm.nn.state import State

_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, near 2^64 / golden ratio: Knuth's multiplier
_FOLD = 32  # the high half of a product is the well-mixed one
_WORD = (1 << 64) - 1  # a 64-bit integer, all bits set
BEFORE = -1  # the symbol before the first of a document
PRIMES = (  # of the released BLT's hash functions, in their order
    1_000_000_007, 5_915_587_277, 1_500_450_271, 3_267_000_013, 5_754_853_343, 4_093_082_899,
    9_576_890_767, 3_628_273_133, 2_860_486_313, 5_463_458_053, 3_367_900_313,
)  # fmt: skip


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
        self.table = nn.Embedding(self.tables * rows, dim)
        self.reset_parameters()

    @property
    def tables(self) -> int:
        """How many tables of `rows` rows there are."""
        return len(self.sizes)

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
        hashed = torch.zeros_like(ids_BL)
        found: list[Tensor] = []
        for n, symbol in enumerate(_backwards(ids_BL, tail_BK, document_ids), start=1):
            hashed = (hashed + symbol + 2) * _FACTOR
            hashed = hashed ^ ((hashed >> _FOLD) & 0xFFFFFFFF)
            if n in self.sizes:
                found.append(hashed % self.rows + self.rows * len(found))
        return torch.stack(found, dim=-1)

    def rows_after(self, latest: Sequence[int]) -> list[int]:
        """As `rows_of` for one position, by whole numbers of Python: a step of decoding is too
        little work for tensors. latest: its last K + 1 symbols, the newest first."""
        hashed = 0
        found: list[int] = []
        for n, symbol in enumerate(latest, start=1):
            hashed = (hashed + symbol + 2) * _FACTOR & _WORD
            hashed ^= hashed >> _FOLD
            if n in self.sizes:
                found.append(_signed(hashed) % self.rows + self.rows * len(found))
        return found


class PolynomialTables(NGramTables):
    """With BLT's own hash (Pagnoni et al. 2024, section 3.2.1), for tables of released weights:
    the sum of x_i p^i over an n-gram, its oldest symbol first, in 64-bit integers that wrap around,
    modulo the rows. Before the first symbol of a document stand zeros.

    symbols    what each id counts as, x
    functions  how many hash functions, each with a prime p and tables of its own
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rows: int,
        dim: int,
        *,
        symbols: Sequence[int],
        functions: int = 1,
    ):
        self.primes = PRIMES[:functions]
        super().__init__(sizes, rows, dim)
        assert BEFORE == -1, "which indexes the last entry"
        self._symbols = (*symbols, 0)

    @property
    def tables(self) -> int:
        return len(self.sizes) * len(self.primes)

    def rows_of(self, ids_BL: Tensor, tail_BK: Tensor, document_ids: Tensor | None) -> Tensor:
        """(B, L, functions * sizes) rows of the table: all sizes of a function, then the next's."""
        symbols = torch.tensor(self._symbols, device=ids_BL.device)
        latest = [symbols[ids] for ids in _backwards(ids_BL, tail_BK, document_ids)]
        found: list[Tensor] = []
        for prime in self.primes:
            hashed = torch.zeros_like(ids_BL)
            for n, symbol in enumerate(latest, start=1):
                hashed = hashed * prime + symbol  # Horner: the newest has the highest power
                if n in self.sizes:
                    found.append(hashed % self.rows + self.rows * len(found))
        return torch.stack(found, dim=-1)

    def rows_after(self, latest: Sequence[int]) -> list[int]:
        found: list[int] = []
        for prime in self.primes:
            hashed = 0
            for n, symbol in enumerate(latest, start=1):
                hashed = (hashed * prime + self._symbols[symbol]) & _WORD
                if n in self.sizes:
                    found.append(_signed(hashed) % self.rows + self.rows * len(found))
        return found


def _signed(word: int) -> int:
    """A 64-bit word as the integer that torch takes it for."""
    return word - (_WORD + 1) if word >> 63 else word


def _backwards(ids_BL: Tensor, tail_BK: Tensor, document_ids: Tensor | None) -> Iterator[Tensor]:
    """(B, L) the symbol at each position, then the one before it, ... K + 1 of them; those of
    another document are `BEFORE`."""
    K, L = tail_BK.shape[1], ids_BL.shape[1]
    padded = torch.cat((tail_BK, ids_BL), dim=1)
    documents = None
    if document_ids is not None:
        first = document_ids[:, :1].expand(-1, K)
        documents = torch.cat((first, document_ids), dim=1)
    for k in range(K + 1):
        at = slice(K - k, K - k + L)
        symbol = padded[:, at]
        if documents is not None:
            symbol = symbol.masked_fill(documents[:, at] != documents[:, K:], BEFORE)
        yield symbol
