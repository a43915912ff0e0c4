"""Attention over the sequence itself, causal or not.

Self-attention has rotary positions, an optional window and, if causal, a decode cache. `window`
counts the earlier positions in view besides the position itself (-1 = all), in the parallel forward
and in decoding alike; without causality as many later ones are in view too. Long causal sequences
with a window are computed in blocks, so that their cost grows with L * window and not with L
squared. Attention to an encoder's memory, and with a bias instead of rotations: `nn.biased`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.cache import KVCache
from bytelm.nn.heads import split_heads
from bytelm.nn.linear import Linear
from bytelm.nn.rope import rotary_tables
from bytelm.nn.segments import Segments


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """heads; rotary_dim channels of each head that rotate; window (-1 = all); qk_norm: unit-RMS
    queries and keys (without weights); base of the rotary frequencies; causal: whether positions
    see earlier ones only."""

    heads: int
    rotary_dim: int
    window: int = -1
    qk_norm: bool = False
    base: float = 10_000.0
    causal: bool = True


class SelfAttention(nn.Module):
    """(B, L, D) -> (B, L, D). `Wqkv` has the layout (3, heads, head_dim), no biases."""

    def __init__(self, dim: int, options: AttentionOptions):
        super().__init__()
        self.options = options
        self.head_dim = dim // options.heads
        self.Wqkv = Linear(dim, 3 * dim, bias=False)
        self.out_proj = Linear(dim, dim, bias=False)

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        positions = segments.positions(x_BLD.device)
        q, k, v = self._project(x_BLD, positions)
        window, causal = self.options.window, self.options.causal
        documents = segments.document_ids
        if 0 < 2 * window < segments.length and (causal or documents is not None):
            out = _blockwise(q, k, v, segments, window, causal=causal)
        else:
            mask = segments.attention_mask(window, x_BLD.device, causal=causal)
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal and mask is None
            )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def init_state(self, batch_size: int) -> KVCache:
        """An empty cache; only causal attention can be decoded."""
        assert self.options.causal, "attention in both directions has no decode state"
        weight = self.Wqkv.weight
        return KVCache.empty(
            batch_size, self.options.heads, self.head_dim, dtype=weight.dtype, device=weight.device
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, cache: KVCache
    ) -> tuple[Tensor, KVCache]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), cache)."""
        positions = cache.lengths[:, None] + torch.arange(x_BLD.shape[1], device=x_BLD.device)
        q, k, v = self._project(x_BLD, positions)
        cache = cache.append(k, v, counts)
        out = cache.attend(q, positions, self.options.window)
        return self.out_proj(out.transpose(1, 2).flatten(2)), cache

    def _project(self, x_BLD: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys and the values, each (B, H, L, K)."""
        qkv, angles = self.Wqkv(x_BLD), None
        if self.options.rotary_dim:
            exact = torch.promote_types(qkv.dtype, torch.float32)
            angles = rotary_tables(
                positions, self.options.rotary_dim, base=self.options.base, dtype=exact
            )
        return split_heads(qkv, self.options.heads, angles, qk_norm=self.options.qk_norm)


def _blockwise(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int, *, causal: bool
) -> Tensor:
    """Sliding-window attention in blocks of `window`: each block sees itself, the one before and,
    if not causal, the one behind.

    q, k, v (B, H, L, K). Equals full attention under the window mask.
    """
    B, H, L, K = q.shape
    blocks = -(-L // window)
    pad, sides = blocks * window - L, 2 if causal else 3
    q = F.pad(q, (0, 0, 0, pad)).unflatten(2, (blocks, window))
    k, v = (_neighbours(F.pad(t, (0, 0, 0, pad)), blocks, sides) for t in (k, v))
    mask = segments.block_mask(window, q.device, causal=causal)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2).reshape(B * blocks, H, window, K),
        k.transpose(1, 2).reshape(B * blocks, H, sides * window, K),
        v.transpose(1, 2).reshape(B * blocks, H, sides * window, K),
        attn_mask=mask.expand(B, -1, -1, -1).flatten(0, 1)[:, None],
    )
    out = out.unflatten(0, (B, blocks)).transpose(1, 2)
    return out.reshape(B, H, blocks * window, K)[:, :, :L]


def _neighbours(x: Tensor, blocks: int, sides: int) -> Tensor:
    """(B, H, L, K) -> (B, H, blocks, sides * window, K): each block behind the one before it and,
    of three sides, in front of the next one; zeros where there is none."""
    parts = F.pad(x.unflatten(2, (blocks, -1)), (0, 0, 0, 0, 1, sides - 2))
    return torch.cat([parts[:, :, i : i + blocks] for i in range(sides)], dim=3)
