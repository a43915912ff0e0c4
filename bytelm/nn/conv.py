"""The short depthwise causal convolution in front of the SSM, with SiLU, document cuts and a tail.

Written as a sum of shifted products in one autograd function: on CPU this beats `conv1d` with
groups in float32, needs no transposes, cuts at document starts for free, and recomputes instead of
storing what the backward pass can derive.
"""

from typing import Any

import torch
from torch import Tensor


def causal_conv_silu(
    u_BLC: Tensor,
    weight_CK: Tensor,
    bias_C: Tensor,
    *,
    tail: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> Tensor:
    """silu(bias + sum_k weight[:, K-1-k] * u[t-k]) over the K latest inputs; (B, L, C).

    tail (B, K-1, C): the inputs just before u (zeros if None). document_ids (B, L): inputs of an
    earlier document count as zero; the tail belongs to the row's first document.
    """
    K = weight_CK.shape[1]
    if tail is None:
        tail = u_BLC.new_zeros(u_BLC.shape[0], K - 1, u_BLC.shape[2])
    padded = torch.cat((tail.to(u_BLC.dtype), u_BLC), dim=1)
    weight = weight_CK.to(u_BLC.dtype)
    same = None if document_ids is None else _same_document(document_ids, K).to(u_BLC.dtype)
    bias = bias_C.to(u_BLC.dtype)
    if torch.compiler.is_compiling():  # which fuses the plain form and derives its gradient
        return torch.nn.functional.silu(_convolve(padded, weight, bias, same))
    return _ConvSiLU.apply(padded, weight, bias, same)


def _same_document(document_ids: Tensor, K: int) -> Tensor:
    """(K, B, L, 1): 1 where the input k positions back belongs to the same document."""
    first = document_ids[:, :1].expand(-1, K - 1)
    padded = torch.cat((first, document_ids), dim=1)
    L = document_ids.shape[1]
    shifts = [padded[:, K - 1 - k : K - 1 - k + L] == document_ids for k in range(K)]
    return torch.stack(shifts)[..., None]


def _convolve(padded: Tensor, weight: Tensor, bias: Tensor, same: Tensor | None) -> Tensor:
    K = weight.shape[1]
    L = padded.shape[1] - K + 1
    total = torch.addcmul(bias, padded[:, K - 1 :], weight[:, K - 1])
    for k in range(1, K):
        shifted = padded[:, K - 1 - k : K - 1 - k + L]
        if same is not None:
            shifted = shifted * same[k]
        total = torch.addcmul(total, shifted, weight[:, K - 1 - k])
    return total


class _ConvSiLU(torch.autograd.Function):
    """Keeps its inputs, so that a second derivative finds its way back to them."""

    @staticmethod
    def forward(
        ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor, same: Tensor | None
    ) -> Tensor:
        total = _convolve(padded, weight, bias, same)
        ctx.save_for_backward(padded, weight, bias, total, *(() if same is None else (same,)))
        return torch.nn.functional.silu(total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        padded, weight, bias, total, *rest = ctx.saved_tensors
        same = rest[0] if rest else None
        if torch.is_grad_enabled():  # a second derivative is wanted: all in terms of the inputs
            total = _convolve(padded, weight, bias, same)
            share = total.sigmoid()
            grad = grads[0] * share * (1 + total * (1 - share))
        else:
            grad = torch.ops.aten.silu_backward(grads[0], total)
        K = weight.shape[1]
        L = grad.shape[1]
        grad_padded = torch.zeros_like(padded)
        grad_weight = torch.empty_like(weight)
        for k in range(K):
            at = slice(K - 1 - k, K - 1 - k + L)
            masked = grad if same is None or k == 0 else grad * same[k]
            grad_padded[:, at].addcmul_(masked, weight[:, K - 1 - k])
            grad_weight[:, K - 1 - k] = (masked * padded[:, at]).flatten(0, 1).sum(0)
        return grad_padded, grad_weight, grad.flatten(0, 1).sum(0), None
