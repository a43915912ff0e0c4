"""Rotary position embedding (Su et al. 2021), half-split ("NeoX") layout, optionally partial.

The first `rotary_dim` channels of each head are rotated, channel i paired with i + rotary_dim/2;
the others pass unchanged (the released H-Nets rotate half of each head). Angles are float32 or
better whatever the activations are.
"""

import torch
from torch import Tensor


def rotary_tables(
    positions: Tensor, rotary_dim: int, *, base: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for integer positions (..., L): two tensors (..., L, rotary_dim / 2)."""
    exponent = torch.arange(0, rotary_dim, 2, device=positions.device, dtype=torch.float64)
    frequency = base ** (-exponent / rotary_dim)
    angles = positions[..., None].double() * frequency
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., L, K) by tables (..., L, r/2) that broadcast against it, r <= K."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat((*turned, rest), dim=-1)
