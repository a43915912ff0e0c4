"""A decoding step of causal self-attention: keys and values written where they stand.

The buffers are those of the `KVCache` it is made from, which is claimed, not copied, if they are
nobody else's to write to; they double when they are full.
"""

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
        self._window, self._tables = options.window, tables
        self._project, self._out = linear(module.Wqkv), linear(module.out_proj)
        self._qk_norm = options.qk_norm
        exact = torch.promote_types(module.Wqkv.weight.dtype, torch.float32)
        self._eps = torch.full((), QK_EPS, dtype=exact, device=module.Wqkv.weight.device)
        self._keys, self._values = cache.claim()

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

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        n = x_nD.shape[0]
        qkv = self._project(x_nD).view(n, 3, self._heads, self._width)
        qk = self._turn(qkv[:, :2], places)
        q, k, v = qk[:, 0, :, None], qk[:, 1], qkv[:, 2]
        keys, values = self._keys, self._values
        mask = None
        if places.position is not None:
            if places.rows is not None:
                keys, values = keys[places.span], values[places.span]
            t = places.position
            keys.select(2, t).copy_(k)
            values.select(2, t).copy_(v)
            first = 0 if self._window < 0 else max(0, t - self._window)
            keys, values = keys[:, :, first : t + 1], values[:, :, first : t + 1]
        else:
            keys[places.index, :, places.slots] = k.to(keys.dtype)
            values[places.index, :, places.slots] = v.to(values.dtype)
            first, mask = places.mask(self._window, q.dtype)
            keys, values = keys[:, :, first : places.longest], values[:, :, first : places.longest]
            if places.rows is not None:
                keys = keys.index_select(0, places.index)
                values = values.index_select(0, places.index)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self._out(out.reshape(n, -1))

    def _turn(self, qk: Tensor, places: Places) -> Tensor:
        """Queries and keys (n, 2, H, K), normalised and rotated."""
        if self._qk_norm:
            dtype, exact = qk.dtype, self._eps.dtype
            qk = unit_rms(qk.to(exact), self._eps, 1 / self._width).to(dtype)
        if self._tables is None:
            return qk
        cos, sin = self._tables.at(places)
        r = self._tables.width
        part = qk if r == self._width else qk[..., :r]
        turned = part * cos
        halves = part.unflatten(-1, (2, r // 2))
        turned.unflatten(-1, (2, r // 2)).addcmul_(halves.flip(-2), sin)
        return turned if r == self._width else torch.cat((turned, qk[..., r:]), dim=-1)

    def state(self, lengths: Tensor) -> KVCache:
        """The immutable cache of the rows, whose lengths are (B,)."""
        return KVCache.sealed(self._keys, self._values, lengths)
