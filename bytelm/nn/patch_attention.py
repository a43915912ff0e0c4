"""Attention between bytes and patches: a patch reads its own bytes, and bytes read one patch (BLT).

A patch is k vectors, its slots. When it has closed, each slot looks at the bytes of the patch and
at nothing else (`gather`); after the global network, each byte looks at the k slots of the newest
closed patch (`read`). Both are Pagnoni et al. 2024, section 3.2.2 and 3.3.1.

Two choices a reader may question. Nobody sees more than one patch, so nothing is masked: queries
are carried to the bytes of their patch (or slots to the bytes that read them), and the softmax runs
over each patch by sums over chunks. Work and memory grow with L k, not with L times the number of
patches. And both forms return x + attention(x), to which BLT adds x once more, as in the released
code: the residual counts twice.

Shape letters: B rows, L bytes, C patches, k slots, D width, H heads, K head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.chunking import ChunkPlan, take
from bytelm.nn.linear import Linear
from bytelm.nn.norms import RMSNorm


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """dim D of bytes and slots; heads; slots k of a patch; eps of the norms."""

    dim: int
    heads: int
    slots: int
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """K."""
        return self.dim // self.heads


class SlotsFromBytes(nn.Module):
    """Slots look at the bytes of their patch. `Wkv` has the layout (2, heads, head_dim)."""

    def __init__(self, options: PatchOptions):
        super().__init__()
        self.options, D = options, options.dim
        self.q_norm, self.k_norm = RMSNorm(D, eps=options.eps), RMSNorm(D, eps=options.eps)
        self.Wq = Linear(D, D, bias=False)
        self.Wkv = Linear(D, 2 * D, bias=False)
        self.out_proj = Linear(D, D, bias=False)

    def forward(self, slots_BCkD: Tensor, x_BLD: Tensor, plan: ChunkPlan) -> Tensor:
        """(B, C, k, D): slots and what they find in the bytes (B, L, D) of their patch."""
        H, K, k = self.options.heads, self.options.head_dim, self.options.slots
        q = self.Wq(self.q_norm(slots_BCkD)).flatten(2)
        key, value = self.Wkv(self.k_norm(x_BLD)).chunk(2, dim=-1)
        feeds = plan.feeds.clamp(min=0)
        q = take(q, feeds).unflatten(-1, (k, H, K))
        score = (q * key.unflatten(-1, (1, H, K))).sum(-1).flatten(2) * K**-0.5  # (B, L, k H)
        score = score.to(torch.promote_types(score.dtype, torch.float32))
        weight = (score - take(plan.max(score.detach()), feeds)).exp()
        spread = weight.unflatten(-1, (k, H, 1)) * value.unflatten(-1, (1, H, K))
        total = plan.sum(weight).unflatten(-1, (k, H, 1))
        found = plan.sum(spread.flatten(2)).unflatten(-1, (k, H, K)) / total.clamp(min=1e-30)
        return slots_BCkD + self.out_proj(found.flatten(-2))

    def padded(self, slots_NkD: Tensor, x_NMD: Tensor, lengths: Tensor) -> Tensor:
        """The same for N patches that have closed, of lengths[n] of M bytes each: (N, k, D)."""
        H, K = self.options.heads, self.options.head_dim
        q = self.Wq(self.q_norm(slots_NkD)).unflatten(-1, (H, K)).transpose(1, 2)
        both = self.Wkv(self.k_norm(x_NMD)).unflatten(-1, (2, H, K))
        key, value = both.transpose(1, 3).unbind(2)
        mask = torch.arange(x_NMD.shape[1], device=lengths.device) < lengths[:, None]
        found = F.scaled_dot_product_attention(q, key, value, attn_mask=mask[:, None, None])
        return slots_NkD + self.out_proj(found.transpose(1, 2).flatten(2))


class BytesFromSlots(nn.Module):
    """Bytes look at the slots of one patch. With one slot there is nothing to choose from, hence
    neither queries nor keys."""

    def __init__(self, options: PatchOptions):
        super().__init__()
        self.options, D = options, options.dim
        self.chooses = options.slots > 1
        if self.chooses:
            self.q_norm = RMSNorm(D, eps=options.eps)
            self.Wq = Linear(D, D, bias=False)
        self.k_norm = RMSNorm(D, eps=options.eps)
        self.Wkv = Linear(D, (2 if self.chooses else 1) * D, bias=False)
        self.out_proj = Linear(D, D, bias=False)

    def forward(self, x_BLD: Tensor, slots_BCkD: Tensor, reads_BL: Tensor) -> Tensor:
        """x and what each byte finds in the slots of the patch that it reads: (B, L, D)."""
        kv_BCkE = self.Wkv(self.k_norm(slots_BCkD))  # keys and values; values alone where k is 1
        kv = take(kv_BCkE.flatten(2), reads_BL)  # (B, L, k E)
        if not self.chooses:
            return x_BLD + self.out_proj(kv)
        H, K, k = self.options.heads, self.options.head_dim, self.options.slots
        key, value = kv.unflatten(-1, (k, 2, H, K)).unbind(3)
        q = self.Wq(self.q_norm(x_BLD)).unflatten(-1, (1, H, K))
        score = (q * key).sum(-1) * K**-0.5  # (B, L, k, H)
        exact = torch.promote_types(score.dtype, torch.float32)
        weight = score.softmax(2, dtype=exact).to(value.dtype)
        found = (weight[..., None] * value).sum(2)
        return x_BLD + self.out_proj(found.flatten(2))
