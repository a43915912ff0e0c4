"""Unpoolers: how bytes read the vectors of chunks.

H-Net's (the newest chunk's smoothed vector, times the confidence of its start) is in `chunking.py`;
these are the others. All take the chunks' outputs z (B, C, D) and a plan, and give (B, L, D).
"""

import torch
from torch import Tensor

from bytelm.nn.chunking import ChunkPlan, upsample


def at_starts(z_BCD: Tensor, plan: ChunkPlan) -> Tensor:
    """Each chunk's vector at its first byte, 0 at all others (SpaceByte)."""
    if z_BCD.shape[1] == 0:
        return z_BCD.new_zeros(*plan.starts.shape, z_BCD.shape[2])
    read = upsample(z_BCD, plan.feeds, torch.zeros_like(z_BCD[:, 0]))
    return read.masked_fill(~plan.starts[..., None], 0.0)
