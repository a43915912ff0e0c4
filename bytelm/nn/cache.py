"""`KVCache`: keys and values of the past, immutable over append-only storage.

Appending writes behind the last position in place and returns a new cache that says "one longer";
the old cache stays valid because it never looks further than its own length. Only when somebody
appends a second continuation to the same cache is the storage copied. Rows have lengths of their
own, so batched decoding may append to some rows only, and `view`/`scatter` let an inner network
work on a few rows without copying the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.nn.state import State

_SEALED = torch.iinfo(torch.long).max  # "filled" of storage that somebody writes to in place
_GROWTH = 64  # capacity is a multiple of this
_DOUBLED = 2048  # smaller capacities double when they grow, larger ones grow by a quarter


def grown(capacity: int, needed: int) -> int:
    """The capacity, in positions, after one that is too small for `needed` of them."""
    more = capacity if capacity < _DOUBLED else capacity // 4
    return max(needed, capacity + more)


class _Storage:
    """Keys and values (R, H, capacity, K) and how much of each row is already taken (R,)."""

    __slots__ = ("keys", "values", "filled")

    def __init__(self, keys: Tensor, values: Tensor, filled: Tensor):
        self.keys, self.values, self.filled = keys, values, filled

    @classmethod
    def zeros(cls, like: Self, rows: int, capacity: int) -> Self:
        """Room for at least `capacity` positions in each row, with the heads and type of `like`."""
        capacity = -(-capacity // _GROWTH) * _GROWTH
        shape = (rows, like.keys.shape[1], capacity, like.keys.shape[3])
        return cls(
            like.keys.new_zeros(shape), like.values.new_zeros(shape), like.filled.new_zeros(rows)
        )


@dataclass(frozen=True)
class KVCache(State):
    """storage shared with ancestors; rows (B,) of it that are ours; lengths (B,) in positions."""

    storage: _Storage
    rows: Tensor
    lengths: Tensor

    @classmethod
    def empty(
        cls, batch_size: int, heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device
    ) -> Self:
        """A cache of `batch_size` rows without any position."""
        keys = torch.empty(batch_size, heads, 0, head_dim, dtype=dtype, device=device)
        zeros = torch.zeros(batch_size, dtype=torch.long, device=device)
        rows = torch.arange(batch_size, device=device)
        return cls(_Storage(keys, torch.empty_like(keys), zeros), rows, zeros.clone())

    @classmethod
    def sealed(cls, keys: Tensor, values: Tensor, lengths: Tensor) -> Self:
        """A cache that reads the first lengths (B,) positions of buffers (B, H, capacity, K), which
        their owner goes on writing to behind them; whatever is appended goes to a copy."""
        rows = torch.arange(len(lengths), device=keys.device)
        return cls(_Storage(keys, values, torch.full_like(lengths, _SEALED)), rows, lengths)

    def claim(self) -> tuple[Tensor, Tensor]:
        """Buffers (B, H, capacity, K) of keys and values whose positions from `lengths` on are the
        caller's alone to write: our own ones where nobody else has written there, which are sealed
        so that nobody will, or else copies."""
        storage = self.storage
        if not self._whole() or not bool((storage.filled == self.lengths).all()):
            storage = self._copied(int(self.lengths.max()) + 1).storage
        storage.filled[:] = _SEALED
        return storage.keys, storage.values

    def append(self, keys_BHLK: Tensor, values_BHLK: Tensor, counts: Tensor | None) -> Self:
        """The cache with counts[b] (None = L) new positions in row b."""
        L = keys_BHLK.shape[2]
        added = torch.full_like(self.lengths, L) if counts is None else counts
        lengths = self.lengths + added
        storage = self._writable(int(lengths.max()))
        rows = self.rows if storage is self.storage else torch.arange(len(lengths)).to(lengths)
        offset = torch.arange(L, device=lengths.device)
        slot = self.lengths[:, None] + offset  # (B, L)
        keep = offset < added[:, None]
        row = rows[:, None].expand_as(slot)[keep]
        storage.keys[row, :, slot[keep]] = keys_BHLK.transpose(1, 2)[keep].to(storage.keys.dtype)
        storage.values[row, :, slot[keep]] = values_BHLK.transpose(1, 2)[keep].to(
            storage.values.dtype
        )
        storage.filled[rows] = lengths
        return type(self)(storage, rows, lengths)

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, max length, K); positions past a row's length are arbitrary."""
        longest = int(self.lengths.max())
        keys, values = self.storage.keys[:, :, :longest], self.storage.values[:, :, :longest]
        if self._whole():
            return keys, values
        return keys.index_select(0, self.rows), values.index_select(0, self.rows)

    def attend(self, q_BHLK: Tensor, positions_BL: Tensor, window: int) -> Tensor:
        """(B, H, L, K) what queries at these positions of their rows see of all that was appended,
        `window` positions back (-1 = all)."""
        keys, values = self.read()
        first = 0
        if 0 <= window < keys.shape[2]:  # leave out what no row sees
            first = max(0, int(positions_BL.min()) - window)
            keys, values = keys[:, :, first:], values[:, :, first:]
        slots = torch.arange(first, first + keys.shape[2], device=keys.device)
        visible = slots <= positions_BL[:, :, None]
        if window >= 0:
            visible &= slots >= positions_BL[:, :, None] - window
        # Outputs past a row's count are never read, but a mask row without any key would be NaN.
        visible[..., 0] |= ~visible.any(dim=-1)
        keys, values = keys.to(q_BHLK.dtype), values.to(q_BHLK.dtype)
        return F.scaled_dot_product_attention(q_BHLK, keys, values, attn_mask=visible[:, None])

    def select(self, rows: Tensor) -> Self:
        return self.view(rows)._copied(int(self.lengths.max()) + 1)

    def view(self, rows: Tensor) -> Self:
        return type(self)(self.storage, self.rows[rows], self.lengths[rows])

    def scatter(self, rows: Tensor, part: Self) -> Self:
        lengths = self.lengths.index_copy(0, rows, part.lengths)
        if part.storage is self.storage:
            return type(self)(self.storage, self.rows, lengths)
        # The copy holds our own rows first, which may be longer than all that replaces them.
        whole = self._copied(max(int(lengths.max()), int(self.lengths.max())))
        keys, values = part.read()
        longest = keys.shape[2]
        whole.storage.keys[rows, :, :longest] = keys
        whole.storage.values[rows, :, :longest] = values
        whole.storage.filled[:] = lengths
        return type(self)(whole.storage, whole.rows, lengths)

    def join(self, others: Sequence[Self]) -> Self:
        caches = [self, *others]
        lengths = torch.cat([cache.lengths for cache in caches])
        storage = _Storage.zeros(self.storage, len(lengths), int(lengths.max()) + 1)
        storage.filled[:] = lengths
        at = 0
        for cache in caches:
            keys, values = cache.read()
            place = slice(at, at := at + len(cache.rows)), slice(None), slice(keys.shape[2])
            storage.keys[place], storage.values[place] = keys, values
        return type(self)(storage, torch.arange(at, device=lengths.device), lengths)

    def _whole(self) -> bool:
        count = self.storage.keys.shape[0]
        return len(self.rows) == count and bool(
            (self.rows == torch.arange(count, device=self.rows.device)).all()
        )

    def _writable(self, needed: int) -> _Storage:
        """The storage itself if our rows end where it ends and it has room, else a copy."""
        storage = self.storage
        fits = needed <= storage.keys.shape[2]
        if fits and bool((storage.filled[self.rows] == self.lengths).all()):
            return storage
        return self._copied(needed if fits else grown(storage.keys.shape[2], needed)).storage

    def _copied(self, capacity: int) -> Self:
        """The same rows on storage of their own with room for `capacity` positions."""
        old = self.storage
        kept = min(int(self.lengths.max()), old.keys.shape[2])
        new = _Storage.zeros(old, len(self.rows), capacity)
        new.keys[:, :, :kept] = old.keys[self.rows, :, :kept]
        new.values[:, :, :kept] = old.values[self.rows, :, :kept]
        new.filled[:] = self.lengths
        rows = torch.arange(len(self.rows), device=self.rows.device)
        return type(self)(new, rows, self.lengths)
