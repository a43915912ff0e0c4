"""Gated feed-forward networks (Shazeer 2020): SwiGLU, fc2(value * silu(gate)), and GEGLU, with the
tanh form of gelu instead of silu, as T5 1.1 has it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.fused import differentiable, flat, over_rows, rows_of, use_loops
from bytelm.nn.linear import Linear


class SwiGLU(nn.Module):
    """(B, L, D) -> (B, L, D). fc1 gives value, then gate: the order of the released H-Nets."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, 2 * hidden, bias=False)
        self.fc2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gated(self.fc1(x)))


class GEGLU(nn.Module):
    """(B, L, D) -> (B, L, D). fc1 gives value, then gate, as in `SwiGLU`."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, 2 * hidden, bias=False)
        self.fc2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.gelu(gate, approximate="tanh") * value)


def gated(h: Tensor) -> Tensor:
    """value * silu(gate) of h = (value, gate) along the last axis: (..., 2 H) -> (..., H)."""
    return _Gated.apply(h) if use_loops(h) else _plain(h)


def _plain(h: Tensor) -> Tensor:
    value, gate = h.chunk(2, dim=-1)
    return F.silu(gate) * value


class _Gated(torch.autograd.Function):
    """One loop each way; writes the gradients of value and gate where those of h belong."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        from bytelm.nn.loops import norm

        ctx.save_for_backward(h)
        hidden = h.shape[-1] // 2
        out = h.new_empty(*h.shape[:-1], hidden)
        over_rows(norm.swiglu, out.numel() // hidden, *rows_of(h), hidden, flat(out))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor | None:
        from bytelm.nn.loops import norm

        (h,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(_plain, (h,), grads[0])[0]
        hidden = h.shape[-1] // 2
        grad_h = h.new_empty(h.shape)
        over_rows(
            norm.swiglu_backward,
            h.numel() // h.shape[-1],
            *rows_of(grads[0]),
            *rows_of(h),
            hidden,
            flat(grad_h),
        )
        return grad_h
