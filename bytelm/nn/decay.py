"""Products of positions within a chunk of the SSD, weighted by the decay from the one to the other:

    out[h, i, j] = products[i, j] exp(total[h, i] - total[h, j]) for j <= i, else 0

where `total` is the cumulative sum of log-decays (Dao & Gu 2024, section 6). These are the widest
tensors of the SSD, Q numbers per position and head, so on CPUs they are made in one compiled loop
(`nn.fused`). With several documents in a row it is always the torch code.
"""

from typing import Any

import torch
from torch import Tensor

from bytelm.nn.fused import differentiable, flat, over_rows, use_loops


def decayed(products: Tensor, total: Tensor, inside: Tensor) -> Tensor:
    """(b, c, g, r, Q, Q) from products (b, c, g, Q, Q) and total (b, c, g, r, Q).

    inside: which position reads which, (Q, Q) causal, or (b, c, 1, 1, Q, Q) with documents cut.
    """
    if inside.ndim == 2 and use_loops(products, total):
        return _Decayed.apply(products, total)
    return _plain(products, total, inside)


def causal(Q: int, device: torch.device) -> Tensor:
    """(Q, Q) bool: position i reads position j <= i."""
    return torch.ones(Q, Q, dtype=torch.bool, device=device).tril()


def _plain(products: Tensor, total: Tensor, inside: Tensor) -> Tensor:
    # masked before the exponential, which overflows above the diagonal
    weight = (total[..., :, None] - total[..., None, :]).masked_fill(~inside, -torch.inf).exp_()
    return products[..., None, :, :] * weight.to(products.dtype)


class _Decayed(torch.autograd.Function):
    """Computes the exponentials again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, total: Tensor) -> Tensor:
        from bytelm.nn.loops import decay

        ctx.save_for_backward(products, total)
        heads, Q = total.shape[-2:]
        out = total.new_empty(*total.shape, Q)
        rows = products.numel() // (Q * Q)
        over_rows(decay.decayed, rows, flat(products), flat(total), heads, Q, flat(out))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from bytelm.nn.loops import decay

        products, total = ctx.saved_tensors
        heads, Q = total.shape[-2:]
        if torch.is_grad_enabled():
            inside = causal(Q, total.device)
            return differentiable(lambda p, t: _plain(p, t, inside), (products, total), grads[0])
        of_products = torch.zeros_like(products, memory_format=torch.contiguous_format)
        of_total = torch.zeros_like(total, memory_format=torch.contiguous_format)
        over_rows(
            decay.decayed_backward,
            products.numel() // (Q * Q),
            *map(flat, (grads[0], products, total)),
            heads,
            Q,
            flat(of_products),
            flat(of_total),
        )
        return of_products, of_total
