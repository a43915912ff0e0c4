"""Rotary position embedding (Su et al. 2021), half-split ("NeoX") layout, optionally partial.

The first `rotary_dim` channels of each head are rotated, channel i paired with i + rotary_dim/2;
the others pass unchanged (the released H-Nets rotate half of each head). Angles are float32 or
better whatever the activations are.
"""

from typing import Any

import torch
from torch import Tensor

from bytelm.device import has_float64


def rotary_tables(
    positions: Tensor, rotary_dim: int, *, base: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for integer positions (..., L): two tensors (..., L, rotary_dim / 2)."""
    device = positions.device
    exact = positions if has_float64(device) else positions.cpu()
    exponent = torch.arange(0, rotary_dim, 2, device=exact.device, dtype=torch.float64)
    frequency = base ** (-exponent / rotary_dim)
    angles = exact[..., None].double() * frequency
    return angles.cos().to(dtype).to(device), angles.sin().to(dtype).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., L, K) by tables (..., L, r/2) that broadcast against it, r <= K."""
    return _Rotation.apply(x, cos.to(x.dtype), sin.to(x.dtype))


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back, so nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotation.apply(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    if torch.compiler.is_compiling():  # it cannot follow writes into slices
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
    turned = torch.empty_like(x)
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half : 2 * half]).addcmul_(first, sin)
    turned[..., 2 * half :] = rest
    return turned
