"""Sums over data-parallel ranks inside a forward pass, for losses that are no mean over rows.

A ratio loss depends on a share taken over the whole batch. When the batch is spread over processes
the share must be that of all of them, or the loss curve depends on their number.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(x: Tensor) -> Tensor:
    """`x` summed over all ranks of a distributed training step; else `x` itself.

    Outside training (no gradient is recorded) nothing is summed: ranks may then work on different
    things. Every rank must call it equally often.
    """
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        return _SumOverRanks.apply(x)
    return x


class _SumOverRanks(torch.autograd.Function):
    """y = sum over ranks of x; so the gradient of x is the sum over ranks of the gradients of y."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        return _summed(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _SumOverRanks.apply(grad)


def _summed(x: Tensor) -> Tensor:
    total = x.detach().clone()
    dist.all_reduce(total)
    return total
