"""Chunk plans: which chunk each byte feeds and which it may read, and H-Net's parts around them.

`ChunkPlan` is derived once from the chunk starts and is all that a hierarchical model needs to know
about its chunks. Two laws hold for every plan (tests/nn/test_plans.py): what a byte reads depends
on no later byte (causality), and the plan of a prefix is the prefix of the plan (stability). The
rest are H-Net's smoothing and upsampling (Hwang et al. 2025, section 2.2, eq. 5-9) and its ratio
loss (eq. 10), in float32 or better.

Shape letters: B rows, L bytes, C chunks, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange, repeat
from torch import Tensor

from bytelm.nn.ranks import sum_over_ranks
from bytelm.nn.segments import Segments
from bytelm.nn.ssd import ssd

P_MIN = 1e-4


@dataclass(frozen=True)
class ChunkPlan:
    """starts (B, L) bool: true at valid positions that begin a chunk.

    delay         chunks by which reading lags behind feeding, a property of the pooler: 0 if a
                  chunk is represented by its first byte, 1 if it pools bytes until it closes
    document_ids  (B, L), non-decreasing along a row; each document's first position is a start, and
                  no byte reads a chunk of another document. None = one document per row
    slots         the number of chunk slots C is rounded up to a multiple of it (at most L). Rounded
                  shapes keep kernels, and with them the last bits of every result, the same when a
                  later byte adds a chunk; decoding needs none of that and uses 1
    ends          (B, L) bool: the chunk is known to end with this byte (`Cuts.ends`), so that what
                  pools it can be read from here on, not only from the next byte on; None = never
    lengths       (B,) valid positions per row; None = all, so that padding would be pooled into the
                  last chunk, which is read if its end is known

    >>> plan = ChunkPlan(torch.tensor([[True, False, True, False]]), delay=1)
    >>> plan.feeds.tolist(), plan.reads.tolist()
    ([[0, 0, 1, 1]], [[-1, -1, 0, 0]])
    """

    starts: Tensor
    delay: int = 0
    document_ids: Tensor | None = None
    slots: int = 1
    ends: Tensor | None = None
    lengths: Tensor | None = None

    @cached_property
    def chunks_so_far(self) -> Tensor:
        """(B, L) number of chunks that started at or before each position."""
        return self.starts.cumsum(dim=1)

    @cached_property
    def feeds(self) -> Tensor:
        """(B, L) index of the chunk each byte contributes to; -1 before a row's first start.

        Padding counts to the row's last chunk.
        """
        return self.chunks_so_far - 1

    @cached_property
    def reads(self) -> Tensor:
        """(B, L) index of the newest chunk whose output each byte may read; -1 = none yet."""
        if self.delay == 0:
            return self.feeds
        reads = self.feeds - self.delay
        if self.ends is not None:
            reads = reads + self.ends
        reads = reads.clamp(min=-1)
        if self.document_ids is None or self.width == 0:
            return reads
        inside = self.select(self.document_ids).gather(1, reads.clamp(min=0))
        return torch.where(inside == self.document_ids, reads, -1)

    @cached_property
    def readers(self) -> "ChunkPlan":
        """The plan whose chunks are the bytes that read the same chunk, in the same document: what
        a local decoder works on that begins anew with every chunk it gets to read."""
        changes = torch.ones_like(self.starts)
        changes[:, 1:] = self.reads[:, 1:] != self.reads[:, :-1]
        if self.document_ids is not None:
            changes[:, 1:] |= self.document_ids[:, 1:] != self.document_ids[:, :-1]
        if self.lengths is not None:
            index = torch.arange(changes.shape[1], device=changes.device)
            changes &= index < self.lengths[:, None]
        return ChunkPlan(
            changes, document_ids=self.document_ids, slots=self.slots, lengths=self.lengths
        )

    @cached_property
    def counts(self) -> Tensor:
        """(B,) chunks per row."""
        return self.chunks_so_far[:, -1]

    @cached_property
    def width(self) -> int:
        """C: the largest count, rounded up; not 0 where it is rounded, so that the network inside
        runs, as it does on every other rank, also for rows without a valid position."""
        largest = max(int(self.counts.max()), self.slots > 1)
        return min(-(-largest // self.slots) * self.slots, self.starts.shape[1])

    @cached_property
    def first(self) -> Tensor:
        """(B, C) position of each chunk's first byte; slots past a row's count hold 0."""
        B, L = self.starts.shape
        slot = torch.where(self.starts, self.feeds, self.width)  # one spare column takes the rest
        index = torch.zeros(B, self.width + 1, dtype=torch.long, device=self.starts.device)
        index.scatter_(1, slot, repeat(torch.arange(L, device=slot.device), "l -> b l", b=B))
        index[:, self.width] = 0
        return index[:, : self.width]

    @cached_property
    def sizes(self) -> Tensor:
        """(B, C) valid bytes of each chunk; 0 in slots past a row's count."""
        return self.sum(torch.ones_like(self.feeds)[..., None]).squeeze(-1)

    @cached_property
    def offsets(self) -> Tensor:
        """(B, L) index of each byte within its chunk; 0 before a row's first start."""
        index = torch.arange(self.starts.shape[1], device=self.starts.device)
        begun = torch.where(self.starts, index, 0).cummax(dim=1).values
        return torch.where(self.feeds >= 0, index - begun, 0)

    def select(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (B, C, ...): the row of each chunk's first byte."""
        return take(x, self.first)

    def sum(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, C, D): the sum over each chunk's bytes; 0 in slots past a count. Padding
        counts to the last chunk unless `lengths` are given."""
        B, _, D = x_BLD.shape
        total = x_BLD.new_zeros(B, self.width + 1, D)  # slot 0 takes bytes before the first start
        total.scatter_add_(1, repeat(self._slots_of_valid, "b l -> b l d", d=D), x_BLD)
        return total[:, 1:]

    def max(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, C, D): the largest of each channel over each chunk's bytes; 0 in slots
        past a count. Where bytes are equally large, the gradient is divided between them."""
        B, _, D = x_BLD.shape
        empty = x_BLD.new_zeros(B, self.width + 1, D)  # slot 0 takes bytes before the first start
        index = repeat(self._slots_of_valid, "b l -> b l d", d=D)
        return empty.scatter_reduce(1, index, x_BLD, "amax", include_self=False)[:, 1:]

    @cached_property
    def _slots_of_valid(self) -> Tensor:
        """(B, L) one more than `feeds`; padding, where it is known, goes to slot 0."""
        if self.lengths is None:
            return self.chunks_so_far
        index = torch.arange(self.starts.shape[1], device=self.starts.device)
        return torch.where(index < self.lengths[:, None], self.chunks_so_far, 0)

    def members(self, width: int | None = None) -> "Members":
        """The bytes of each chunk side by side, M = `width` places per chunk (None = as many as the
        largest chunk has). Results are the same to the last bit only under the same width; a chunk
        larger than it is an error of the caller, who knows the limit of the rule."""
        if width is None:
            width = max(1, int(self.sizes.max())) if self.sizes.numel() else 1
        assert self.sizes.numel() == 0 or int(self.sizes.max()) <= width, "chunks are larger"
        place = torch.arange(width, device=self.starts.device)
        return Members(
            index=(self.first[..., None] + place).clamp(max=self.starts.shape[1] - 1),
            slot=self.feeds.clamp(min=0) * width + self.offsets.clamp(max=width - 1),
        )

    def segments(self) -> Segments:
        """The chunks as rows of positions for the network that works on them."""
        documents = None if self.document_ids is None else self.select(self.document_ids)
        return Segments(self.width, self.counts, documents)


@dataclass(frozen=True)
class Members:
    """The bytes of chunks side by side.

    index  (B, C, M) position of the byte at each place of each chunk; places past a chunk's size
           (`ChunkPlan.sizes`) hold those of other bytes
    slot   (B, L) each byte's own place, counted over all chunks of its row
    """

    index: Tensor
    slot: Tensor

    def gather(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (B, C, M, ...)."""
        return take(x, self.index.flatten(1)).unflatten(1, self.index.shape[1:])

    def spread(self, y: Tensor) -> Tensor:
        """(B, C, M, ...) -> (B, L, ...): what stands at each byte's own place."""
        return take(y.flatten(1, 2), self.slot)


def take(x: Tensor, index_BC: Tensor) -> Tensor:
    """x[b, index[b, c]]: (B, L, ...) -> (B, C, ...)."""
    B, L = x.shape[:2]
    flat = index_BC + L * torch.arange(B, device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index_BC.shape)


def upsample(z_BCD: Tensor, reads_BL: Tensor, initial_BD: Tensor) -> Tensor:
    """The chunk vector that each byte reads, (B, L, D); `initial` where `reads` is -1."""
    return take(torch.cat((initial_BD[:, None], z_BCD), dim=1), reads_BL + 1)


def starts_on_bytes(plans: Sequence[ChunkPlan]) -> list[Tensor]:
    """Chunk starts of nested stages, outermost first, as positions of the bytes: (B, L) bool each.

    Each plan but the first is over the chunks of the one before it.
    """
    found: list[Tensor] = []
    for plan in plans:
        starts = plan.starts
        if found:  # back from chunks of the stage outside to the bytes where those start
            outer, inside = found[-1], torch.zeros_like(found[-1])
            rows, chunk = outer.nonzero()[:, 0], (outer.cumsum(1) - 1)[outer]
            inside[outer] = starts[rows, chunk]
            starts = inside
        found.append(starts)
    return found


def smooth(
    z_BCD: Tensor,
    p_BC: Tensor,
    *,
    initial_BD: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> Tensor:
    """The moving average over chunks (eq. 5): out_j = P_j z_j + (1 - P_j) out_{j-1}, (B, C, D).

    P is clamped to [1e-4, 1 - 1e-4]; the average restarts where document_ids (B, C) change. It is
    an SSD with one head and one state: decay exp(-step) = 1 - P, input z * P / step.
    """
    p = p_BC.to(torch.promote_types(p_BC.dtype, torch.float32)).clamp(P_MIN, 1 - P_MIN)
    step = -torch.log1p(-p)
    scaled = z_BCD.to(p.dtype) * (p / step)[..., None]
    ones = p.new_ones(*p.shape, 1, 1)
    state = None if initial_BD is None else rearrange(initial_BD.to(p.dtype), "b d -> b 1 d 1")
    with torch.autocast(z_BCD.device.type, enabled=False):
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
    """N/(N-1) ((N-1) F G + (1-F)(1-G)) for N = target bytes per chunk (eq. 10); 1 at F = G = 1/N.

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


_MARGIN = 0.25  # taught probabilities are to be at least this far from 1/2


def imitation_loss(p_BL: Tensor, starts_BL: Tensor, valid: Tensor | None) -> Tensor:
    """How far a router is from cutting at `starts`: the mean over valid positions of the squared
    distance of p to the right side of 1/2, a margin of 1/4 included; 0 once it is well decided.

    The mean is that of all ranks of a distributed step.
    """
    wanted = torch.where(starts_BL, 1.0, -1.0).to(p_BL.dtype)
    short = (_MARGIN - wanted * (p_BL - 0.5)).clamp(min=0).square()
    kept = short if valid is None else short * valid
    count = p_BL.new_tensor(p_BL.numel()) if valid is None else valid.sum().to(p_BL.dtype)
    sums = sum_over_ranks(torch.stack((kept.sum(), count)))
    return sums[0] / sums[1].detach().clamp(min=1)
