"""A decoding step of causal self-attention: keys and values written where they stand.

The buffers are those of the `KVCache` it is made from, which is claimed, not copied, if they are
nobody else's to write to; they double when they are full.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.attention import SelfAttention
from bytelm.nn.cache import KVCache
from bytelm.nn.heads import QK_EPS
from bytelm.nn.stepping.ops import linear, unit_rms
from bytelm.nn.stepping.places import Places, RotaryTables


class AttentionSteps:
    """x (n, D) -> (n, D) for the rows and positions of `Places`."""

    def __init__(self, module: SelfAttention, cache: KVCache, tables: RotaryTables | None):
        options = module.options
        self._heads, self._width = options.heads, module.head_dim
        self.module, self.tables = module, tables
        self._window = options.window
        self._project, self._out = linear(module.Wqkv), linear(module.out_proj)
        self._qk_norm = options.qk_norm
        exact = torch.promote_types(module.Wqkv.weight.dtype, torch.float32)
        self._eps = torch.full((), QK_EPS, dtype=exact, device=module.Wqkv.weight.device)
        self._keys, self._values = cache.claim()

    @property
    def qk_eps(self) -> float:
        """Of the norm of queries and keys; -1 = there is none."""
        return QK_EPS if self._qk_norm else -1.0

    @cached_property
    def arrays(self) -> tuple[Any, Any]:
        """The buffers of keys and values (R, H, capacity, K) as arrays on the CPU."""
        return self._keys.numpy(), self._values.numpy()

    @property
    def capacity(self) -> int:
        """Positions for which there is room."""
        return self._keys.shape[2]

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` positions per row."""
        self._keys, self._values = (
            F.pad(buffer, (0, 0, 0, capacity - buffer.shape[2]))
            for buffer in (self._keys, self._values)
        )
        self.__dict__.pop("arrays", None)

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        n, H, K = x_nD.shape[0], self._heads, self._width
        both, v = self._project(x_nD).split_with_sizes([2 * H * K, H * K], dim=-1)
        q, k = self._turn(both.view(n, 2, H, K), places).unbind(1)
        v = v.view(n, H, K)
        q = q.unsqueeze(2)
        if places.position is None:
            out = self._attend_apart(q, k, v, places)
        else:
            out = self._attend(q, k, v, places.position, places)
        return self._out(out.reshape(n, H * K))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, t: int, places: Places) -> Tensor:
        """Rows that all stand at position t: (n, H, 1, K)."""
        keys, values = self._keys, self._values
        if places.rows is not None:
            keys, values = keys[places.span], values[places.span]
        keys.select(2, t).copy_(k)
        values.select(2, t).copy_(v)
        first = 0 if self._window < 0 else max(0, t - self._window)
        seen = t + 1 - first
        keys, values = keys.narrow(2, first, seen), values.narrow(2, first, seen)
        return F.scaled_dot_product_attention(q, keys, values)

    def _attend_apart(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        """Rows at positions of their own: (n, H, 1, K)."""
        index, slots = places.index, places.slots
        self._keys[index, :, slots] = k
        self._values[index, :, slots] = v
        first, mask = places.mask(self._window, q.dtype)
        seen = places.longest - first
        keys, values = self._keys.narrow(2, first, seen), self._values.narrow(2, first, seen)
        if places.rows is not None:
            keys, values = keys.index_select(0, index), values.index_select(0, index)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)

    def _turn(self, qk: Tensor, places: Places) -> Tensor:
        """Queries and keys (n, 2, H, K), normalised and rotated."""
        if self._qk_norm:
            dtype, exact = qk.dtype, self._eps.dtype
            qk = qk if dtype is exact else qk.to(exact)
            qk = unit_rms(qk, self._eps, 1 / self._width)
            qk = qk if dtype is exact else qk.to(dtype)
        if self.tables is None:
            return qk
        cos, sin = self.tables.at(places)
        r = self.tables.width
        part = qk if r == self._width else qk[..., :r]
        turned = part * cos
        halves = (*part.shape[:-1], 2, r // 2)
        turned.view(halves).addcmul_(part.unflatten(-1, halves[-2:]).flip(-2), sin)
        return turned if r == self._width else torch.cat((turned, qk[..., r:]), dim=-1)

    def state(self, lengths: Tensor) -> KVCache:
        """The immutable cache of the rows, whose lengths are (B,)."""
        return KVCache.sealed(self._keys, self._values, lengths)
