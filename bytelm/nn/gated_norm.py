"""What follows Mamba-2's scan: the skip term, the gate and the norm (Dao & Gu 2024, section 7).

    t = (y + D x) silu(z),        out = t / sqrt(mean(t^2) + eps) * weight

gate first, norm after. As one compiled loop each way where `nn.fused` has it so; by groups it is
always the torch code.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.fused import differentiable, flat, over_rows, parts_of, rows_of, use_loops
from bytelm.nn.norms import RMSNorm


def gated_norm(y_BLHP: Tensor, x_BLHP: Tensor, D_H: Tensor, z_BLW: Tensor, norm: RMSNorm) -> Tensor:
    """The formula above for heads side by side, W = H P; (B, L, W) in float32 or better."""
    if norm.groups == 1 and use_loops(y_BLHP, x_BLHP, D_H, z_BLW, norm.weight):
        return _GatedNorm.apply(
            y_BLHP.flatten(2), x_BLHP.flatten(2), D_H, z_BLW, norm.weight, norm.eps
        )
    y = torch.addcmul(y_BLHP, x_BLHP, D_H.to(x_BLHP.dtype)[:, None])
    return norm(y.flatten(2) * F.silu(z_BLW))


def _plain(y: Tensor, x: Tensor, D: Tensor, z: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    t = (y + x * _by_channel(D, y)) * F.silu(z)
    return t * (t.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def _by_channel(D: Tensor, y: Tensor) -> Tensor:
    return D.repeat_interleave(y.shape[-1] // D.shape[0])


class _GatedNorm(torch.autograd.Function):
    """Keeps its inputs and the scale of each row, and computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, D: Tensor, z: Tensor, weight: Tensor, eps: float
    ) -> Tensor:
        from bytelm.nn.loops import mixer

        scale, out = y.new_empty(y.shape[:-1]), y.new_empty(y.shape)
        ctx.save_for_backward(y, x, D, z, weight, scale)
        ctx.eps = eps
        over_rows(
            mixer.gated_norm,
            scale.numel(),
            *rows_of(y),
            *rows_of(x),
            flat(_by_channel(D, y)),
            *rows_of(z),
            flat(weight),
            weight.new_tensor(eps).numpy()[()],
            flat(scale),
            flat(out),
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from bytelm.nn.loops import mixer

        *inputs, scale = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(*inputs: Tensor) -> Tensor:
                return _plain(*inputs, eps=ctx.eps)

            return (*differentiable(plain, inputs, grads[0]), None)
        y, x, D, z, weight = inputs
        rows, width = scale.numel(), y.shape[-1]
        grad_y, grad_x, grad_z = (y.new_empty(y.shape) for _ in range(3))
        sums = y.new_zeros(parts_of(rows), 2, width)
        over_rows(
            mixer.gated_norm_backward,
            rows,
            *rows_of(grads[0]),
            *rows_of(y),
            *rows_of(x),
            flat(_by_channel(D, y)),
            *rows_of(z),
            flat(weight),
            flat(scale),
            flat(grad_y),
            flat(grad_x),
            flat(grad_z),
            sums.numpy(),
        )
        of_D, of_weight = sums.sum(0)
        return grad_y, grad_x, of_D.view(D.shape[0], -1).sum(1), grad_z, of_weight, None
