"""The short depthwise causal convolution in front of the SSM, with SiLU, document cuts and a tail.

Written as a sum of shifted products in one autograd function: on CPU this beats `conv1d` with
groups in float32, needs no transposes, cuts at document starts for free, and recomputes instead of
storing what the backward pass can derive. Whole sequences go through a compiled loop where
`nn.fused` has it so.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bytelm.nn.fused import differentiable, flat, over_rows, parts_of, rows_of, use_loops


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
    if tail is None and use_loops(u_BLC, weight_CK, bias_C):
        return _ConvSiLULoop.apply(u_BLC, weight_CK, bias_C, document_ids)
    return _shifted(u_BLC, weight_CK, bias_C, tail, document_ids)


def _shifted(
    u_BLC: Tensor,
    weight_CK: Tensor,
    bias_C: Tensor,
    tail: Tensor | None,
    document_ids: Tensor | None,
) -> Tensor:
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


def latest_inputs(tail: Tensor, new: Tensor, counts: Tensor | None) -> Tensor:
    """The last K-1 inputs (B, K-1, C) of each row after appending counts[b] (None = all) of `new`
    (B, L, C) to its tail."""
    joined = torch.cat((tail, new.to(tail.dtype)), dim=1)
    K1 = tail.shape[1]
    if counts is None:
        return joined[:, joined.shape[1] - K1 :]
    index = counts[:, None] + torch.arange(K1, device=counts.device)
    return joined.gather(1, index[..., None].expand(-1, -1, joined.shape[2]))


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


class _ConvSiLULoop(torch.autograd.Function):
    """The same without a tail, in compiled loops."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, weight: Tensor, bias: Tensor, document_ids: Tensor | None
    ) -> Tensor:
        from bytelm.nn.loops import mixer

        ctx.save_for_backward(u, weight, bias)
        ctx.document_ids = document_ids
        out = u.new_empty(u.shape)
        by_tap = weight.detach().flip(1).T.contiguous().numpy()
        documents = _documents(document_ids)
        over_rows(
            mixer.conv_silu,
            _rows(u),
            *rows_of(u),
            u.shape[1],
            documents,
            by_tap,
            flat(bias),
            flat(out),
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from bytelm.nn.loops import mixer

        u, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = lambda u, w, b: _shifted(u, w, b, None, ctx.document_ids)  # noqa: E731
            return (*differentiable(plain, (u, weight, bias), grads[0]), None)
        K, rows, L, documents = weight.shape[1], _rows(u), u.shape[1], _documents(ctx.document_ids)
        by_tap = weight.detach().flip(1).T.contiguous().numpy()
        inner, grad_u = u.new_empty(u.shape), u.new_empty(u.shape)
        sums = u.new_zeros(parts_of(rows), K + 1, u.shape[2])
        over_rows(
            mixer.conv_silu_backward_outer,
            rows,
            *rows_of(grads[0]),
            *rows_of(u),
            L,
            documents,
            by_tap,
            flat(bias),
            flat(inner),
            sums.numpy(),
        )
        over_rows(
            mixer.conv_silu_backward_input, rows, flat(inner), L, documents, by_tap, flat(grad_u)
        )
        total = sums.sum(0)
        return grad_u, total[:K].flip(0).T, total[K], None


def _rows(u: Tensor) -> int:
    return u.shape[0] * u.shape[1]


def _documents(document_ids: Tensor | None) -> np.ndarray:
    """The document of each row, or an empty array where all rows of a sequence are of one."""
    return flat(torch.empty(0, dtype=torch.long) if document_ids is None else document_ids)
