"""Dynamic chunking: where chunks start, how bytes become chunks, and how chunks come back.

`ChunkPlan` says, for every byte, which chunk it belongs to; it is derived once from the chunk
starts. A chunk is represented by its first byte (H-Net's selection), so its output may be read from
that byte on: `member` is also the newest chunk a byte may read. The rest are H-Net's parts
(Hwang et al. 2025, section 2.2): the cosine router (eq. 4), smoothing and upsampling (eq. 5-9), and
the ratio loss (eq. 10). All probabilities are float32 or better: in bfloat16 a few per cent of the
decisions near 1/2 would change.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.ranks import sum_over_ranks
from bytelm.nn.ssd import ssd
from bytelm.vocab import BYTES

_P_MIN = 1e-4


@dataclass(frozen=True)
class ChunkPlan:
    """starts (B, L) bool: true at valid positions that begin a chunk.

    The number of chunk slots M is rounded up to a multiple of `slots` (at most L). Rounded shapes
    keep kernels, and with them the last bits of every result, the same when a later byte adds a
    chunk; decoding needs none of that and uses 1.
    """

    starts: Tensor
    slots: int = 1

    @cached_property
    def opened(self) -> Tensor:
        """(B, L) chunks opened at or before each position; minus 1, it is the position's chunk."""
        return self.starts.cumsum(dim=1)

    @property
    def member(self) -> Tensor:
        """(B, L) index of the chunk each position belongs to; -1 before a row's first start."""
        return self.opened - 1

    @cached_property
    def counts(self) -> Tensor:
        """(B,) chunks a row."""
        return self.opened[:, -1]

    @cached_property
    def width(self) -> int:
        """M: the largest count, rounded up."""
        return min(-(-int(self.counts.max()) // self.slots) * self.slots, self.starts.shape[1])

    @cached_property
    def first(self) -> Tensor:
        """(B, M) position of each chunk's first byte; slots past a row's count hold 0."""
        B, L = self.starts.shape
        slot = torch.where(self.starts, self.member, self.width)  # one spare column takes the rest
        index = torch.zeros(B, self.width + 1, dtype=torch.long, device=self.starts.device)
        positions = torch.arange(L, device=self.starts.device).expand(B, L)
        index.scatter_(1, slot, positions)
        index[:, self.width] = 0
        return index[:, : self.width]

    def select(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (B, M, ...): the row of each chunk's first byte."""
        return _take(x, self.first)


def _take(x: Tensor, index_BM: Tensor) -> Tensor:
    """x[b, index[b, m]]: (B, L, ...) -> (B, M, ...)."""
    B, L = x.shape[:2]
    flat = index_BM + L * torch.arange(B, device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index_BM.shape)


def upsample(z_BMD: Tensor, opened_BL: Tensor, initial_BD: Tensor) -> Tensor:
    """Repeat each chunk's vector until the next chunk starts: (B, L, D).

    opened (B, L) counts the chunks opened so far; positions before the first one get `initial`.
    """
    return _take(torch.cat((initial_BD[:, None], z_BMD), dim=1), opened_BL)


class CosineRouter(nn.Module):
    """Boundary probabilities from the dissimilarity of neighbouring positions (eq. 4).

    The released code projects the *previous* position with `q_proj_layer` and the current one with
    `k_proj_layer` (the paper names them the other way round). Both start as the identity.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.q_proj_layer = nn.Linear(dim, dim, bias=False)
        self.k_proj_layer = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for layer in (self.q_proj_layer, self.k_proj_layer):
            if not layer.weight.is_meta:
                nn.init.eye_(layer.weight)

    def forward(self, x_BLD: Tensor, previous_BD: Tensor) -> Tensor:
        """p (B, L) in [0, 1]; `previous` stands before the first position."""
        with torch.autocast(x_BLD.device.type, enabled=False):
            x = x_BLD.to(self.q_proj_layer.weight.dtype)
            before = torch.cat((previous_BD[:, None].to(x.dtype), x[:, :-1]), dim=1)
            q = F.normalize(self.q_proj_layer(before), dim=-1)
            k = F.normalize(self.k_proj_layer(x), dim=-1)
            return ((1 - (q * k).sum(-1)) / 2).clamp(0, 1)


def smooth(
    z_BMD: Tensor,
    p_BM: Tensor,
    *,
    initial_BD: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> Tensor:
    """The moving average over chunks (eq. 5): out_j = P_j z_j + (1 - P_j) out_{j-1}, (B, M, D).

    P is clamped to [1e-4, 1 - 1e-4]; the average restarts where document_ids (B, M) change. It is
    an SSD with one head and one state: decay exp(-step) = 1 - P, input z * P / step.
    """
    p = p_BM.to(torch.promote_types(p_BM.dtype, torch.float32)).clamp(_P_MIN, 1 - _P_MIN)
    step = -torch.log1p(-p)
    scaled = z_BMD.to(p.dtype) * (p / step)[..., None]
    ones = p.new_ones(*p.shape, 1, 1)
    state = None if initial_BD is None else initial_BD.to(p.dtype)[:, None, :, None]
    with torch.autocast(z_BMD.device.type, enabled=False):
        result = ssd(
            scaled[:, :, None],
            step[..., None],
            p.new_full((1,), -1.0),
            ones,
            ones,
            state_BHPN=state,
            document_ids=document_ids,
        )
    return result.y.squeeze(2)


def confidence_ste(p_BL: Tensor, starts_BL: Tensor) -> Tensor:
    """The straight-through factor (eq. 7-8): 1 in the forward pass, gradient 1 into the
    probability of the decision taken (p at a boundary, 1 - p elsewhere)."""
    chosen = torch.where(starts_BL, p_BL, 1 - p_BL)
    return chosen + (1 - chosen).detach()


@dataclass(frozen=True)
class RatioLoss:
    """loss (); F the share of positions that start a chunk and G their mean probability, over
    valid positions only (detached)."""

    loss: Tensor
    F: Tensor
    G: Tensor


def ratio_loss(p_BL: Tensor, starts_BL: Tensor, valid: Tensor | None, target: float) -> RatioLoss:
    """N/(N-1) ((N-1) F G + (1-F)(1-G)) for N = target bytes a chunk (eq. 10); 1 at F = G = 1/N.

    F carries no gradient. Padding (valid (B, L) false) is left out of both means, which are taken
    over all ranks of a distributed step.
    """
    kept = p_BL if valid is None else p_BL * valid
    count = p_BL.new_tensor(p_BL.numel()) if valid is None else valid.sum().to(p_BL.dtype)
    sums = sum_over_ranks(torch.stack((starts_BL.sum().to(p_BL.dtype), kept.sum(), count)))
    total = sums[2].detach().clamp(min=1)
    share, mean = sums[0].detach() / total, sums[1] / total
    loss = target / (target - 1) * ((target - 1) * share * mean + (1 - share) * (1 - mean))
    return RatioLoss(loss, share, mean.detach())


def space_starts(ids_BL: Tensor, previous_B: Tensor) -> Tensor:
    """SpaceByte's rule (Slagle 2024): a chunk starts at a space-like byte after another kind.

    Space-like: neither ASCII letter or digit nor a UTF-8 continuation byte (specials count as
    space-like). previous (B,): the id before the first position.
    """
    before = torch.cat((previous_B[:, None], ids_BL[:, :-1]), dim=1)
    return _space_like(ids_BL) & ~_space_like(before)


def _space_like(ids: Tensor) -> Tensor:
    lower = ids | 0x20
    letter = (lower >= 0x61) & (lower <= 0x7A) & (ids < BYTES)
    digit = (ids >= 0x30) & (ids <= 0x39)
    continuation = (ids >= 0x80) & (ids <= 0xBF)
    return ~(letter | digit | continuation)


def fixed_starts(positions: Tensor, stride: int) -> Tensor:
    """A chunk every `stride` bytes; position 0 is BOS, so byte 0 of the data is position 1."""
    return (positions - 1) % stride == 0
