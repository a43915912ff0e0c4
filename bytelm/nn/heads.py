"""Queries, keys and values by head, from one projection: unit-RMS norm, rotation, layout.

As one compiled loop each way where `nn.fused` has it so, which reads the projection where it lies
and writes its gradient in one piece; the torch code is `rms_norm` and `rotate`.
"""

from typing import Any

import torch
from torch import Tensor

from bytelm.nn.fused import differentiable, flat, over_rows, rows_of, use_loops
from bytelm.nn.norms import rms_norm
from bytelm.nn.rope import rotate

QK_EPS = 1e-6

Angles = tuple[Tensor, Tensor]  # cosines and sines (L, r/2) or (B, L, r/2)


def split_heads(
    qkv_BLE: Tensor, heads: int, angles: Angles | None, *, qk_norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v (B, H, L, K) from (B, L, 3 H K); queries and keys normalised, then rotated."""
    if use_loops(qkv_BLE, *(angles or ())):
        q, k, v = _Heads.apply(qkv_BLE, heads, angles, qk_norm)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return _plain(qkv_BLE, heads, angles, qk_norm)


def unit_rms(x: Tensor) -> Tensor:
    """x (..., K) at a root mean square of 1 along the last axis, in its own dtype."""
    return rms_norm(x, x.new_ones(x.shape[-1]), QK_EPS).to(x.dtype)


def _plain(
    qkv: Tensor, heads: int, angles: Angles | None, qk_norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).transpose(1, 3).unbind(2)
    if qk_norm:
        q, k = unit_rms(q), unit_rms(k)
    if angles is not None:
        cos, sin = (t[:, None] if t.ndim == 3 else t for t in angles)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    return q, k, v


class _Heads(torch.autograd.Function):
    """Gives (B, L, H, K); keeps the projection and the scale of every head."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, heads: int, angles: Angles | None, qk_norm: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        from bytelm.nn.loops import mixer

        B, L, E = qkv.shape
        q, k, v = (qkv.new_empty(B, L, heads, E // 3 // heads) for _ in range(3))
        scales = qkv.new_empty(B * L, 2 * heads)
        ctx.save_for_backward(qkv, scales)
        ctx.others = (heads, angles, qk_norm)
        over_rows(
            mixer.heads,
            B * L,
            *rows_of(qkv),
            E // 3 // heads,
            *_tables(qkv, angles),
            qkv.new_tensor(QK_EPS).numpy()[()],
            qk_norm,
            *map(flat, (q, k, v, scales)),
        )
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from bytelm.nn.loops import mixer

        qkv, scales = ctx.saved_tensors
        heads, angles, qk_norm = ctx.others
        if torch.is_grad_enabled():
            together = torch.stack(grads)

            def plain(qkv: Tensor) -> Tensor:
                return torch.stack([t.transpose(1, 2) for t in _plain(qkv, *ctx.others)])

            return (*differentiable(plain, (qkv,), together), None, None, None)
        B, L, E = qkv.shape
        grad = qkv.new_empty(qkv.shape)
        over_rows(
            mixer.heads_backward,
            B * L,
            *(part for g in grads for part in rows_of(g.flatten(2))),
            *rows_of(qkv),
            E // 3 // heads,
            *_tables(qkv, angles),
            qk_norm,
            flat(scales),
            flat(grad),
        )
        return grad, None, None, None


def _tables(qkv: Tensor, angles: Angles | None) -> tuple[Any, Any, Any]:
    """Cosines and sines (rows, r/2), and which of their rows each position has."""
    B, L = qkv.shape[:2]
    places = torch.arange(B * L)
    if angles is None:
        none = qkv.new_empty(1, 0).numpy()
        return none, none, torch.zeros_like(places).numpy()
    if angles[0].ndim == 2:
        places %= L
    cos, sin = (t.reshape(-1, t.shape[-1]).contiguous().numpy() for t in angles)
    return cos, sin, places.numpy()
