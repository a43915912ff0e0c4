"""RMSNorm in float32, as one autograd function.

`torch.nn.functional.rms_norm` is not fused on CPU and saves more than it needs; this version keeps
the rows and their scale and writes the backward pass out, as a compiled loop where `nn.fused` has
it so. The mathematics is Zhang & Sennrich 2019, eq. 4: y = x / sqrt(mean(x^2) + eps) * weight.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bytelm.nn.fused import differentiable, flat, over_rows, parts_of, rows_of, use_loops


class _RMSNorm(torch.autograd.Function):
    """Keeps its inputs, so that a second derivative finds its way back to them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if use_loops(x, weight):
            out, scale = _forward_loop(x, weight, eps)
        else:
            scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
            out = x * scale * weight
        ctx.save_for_backward(x, weight, scale)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: all in terms of the inputs
            plain = differentiable(lambda x, w: _plain(x, w, ctx.eps), (x, weight), grads[0])
            return (plain[0], plain[1], None)
        if use_loops(x, weight, grads[0]):
            return (*_backward_loop(grads[0], x, weight, scale), None)
        normed, weighted = x * scale, grads[0] * weight
        along = torch.linalg.vecdot(weighted, normed).div_(normed.shape[-1]).unsqueeze(-1)
        grad_x = weighted.addcmul_(normed, along, value=-1).mul_(scale)
        return grad_x, normed.mul_(grads[0]).flatten(0, -2).sum(0), None


def _plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def _forward_loop(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    from bytelm.nn.loops import norm

    out, scale = x.new_empty(x.shape), x.new_empty(*x.shape[:-1], 1)
    exact = weight.new_tensor(eps).numpy()[()]
    over_rows(
        norm.rms_norm, scale.numel(), *rows_of(x), flat(weight), exact, flat(scale), flat(out)
    )
    return out, scale


def _backward_loop(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    from bytelm.nn.loops import norm

    rows = scale.numel()
    grad_x, sums = x.new_empty(x.shape), x.new_zeros(parts_of(rows), x.shape[-1])
    over_rows(
        norm.rms_norm_backward,
        rows,
        *rows_of(grad),
        *rows_of(x),
        flat(weight),
        flat(scale),
        flat(grad_x),
        sums.numpy(),
    )
    return grad_x, sums.sum(0)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis; computed and returned in at least float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return _RMSNorm.apply(x, weight.to(x.dtype), eps)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned weight (D,), initialised to 1.

    groups > 1 normalises each of `groups` equal parts of the last axis by itself.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5, groups: int = 1):
        super().__init__()
        self.eps = eps
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return rms_norm(x, self.weight, self.eps)
        parts = x.unflatten(-1, (self.groups, -1))
        return rms_norm(parts, parts.new_ones(parts.shape[-1]), self.eps).flatten(-2) * self.weight
