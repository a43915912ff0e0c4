"""BLT's networks: bytes -> local encoder -> patches -> global network -> local decoder.

Sections are those of Pagnoni et al. 2024 (arXiv:2412.09871). Given where patches end, all of it is
causal: a patch is read from its own last byte on, so byte t reads patch number (ends <= t) - 1. In
the released code that is `decoder_patch_ids`, counted from the second patch's length. The first
position (BOS) is always a patch of its own, so there is always one to read.

Between two calls of `extend` a patch may be open: its bytes so far are kept as the encoder left
them, since its slots begin as the maximum over all of them (`PatchState.open`).

Shape letters: B rows, L bytes, C patches, k slots, D width of the local models, G of the global.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.arch.blt.config import BLTConfig
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.linear import Linear
from bytelm.nn.memory import Memory
from bytelm.nn.norms import RMSNorm
from bytelm.nn.patch_attention import BytesFromSlots, SlotsFromBytes
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackState, reset_linears
from bytelm.nn.state import State

_SLOTS = 32  # patches are rounded up to it in the parallel form: see `ChunkPlan`


@dataclass(frozen=True)
class PatchState(State):
    """encoder, inner, decoder: of the three networks; open: the open patch's bytes as the encoder
    left them, (B, M, D) with lengths (B,), 0 = the last byte closed it; read (B, k, D): the slots
    of the newest closed patch, as the decoder sees them."""

    encoder: StackState
    open: Memory
    inner: StackState
    read: Tensor
    decoder: tuple[StackState, ...]


@dataclass(frozen=True)
class BLTState(State):
    """position (B,): positions fed; rule: the boundary rule's own state; net: that of the
    networks."""

    position: Tensor
    rule: State
    net: PatchState


class PatchNet(nn.Module):
    """(B, L, D) -> (B, L, D) given where patches end."""

    def __init__(self, config: BLTConfig):
        super().__init__()
        self.config = config
        D, G, k = config.d_local, config.d_model, config.slots
        options = config.patch_options()
        self.encoder = Stack(
            f"T{config.encoder_layers}", config.stack_options("encoder"), norm=False
        )
        self.slots = Linear(D, k * D, bias=False)
        self.gather = SlotsFromBytes(options)
        self.widen = Linear(k * D, G, bias=False) if k * D != G else nn.Identity()
        self.main_network = Stack(f"T{config.layers}", config.stack_options("global"), norm=False)
        self.narrow = Linear(G, k * D, bias=False)
        readers = config.decoder_layers if config.decoder_reads == "all" else 1
        self.reads = nn.ModuleList(BytesFromSlots(options) for _ in range(readers))
        decoder = config.stack_options("decoder")
        self.decoder = nn.ModuleList(
            Stack("T1", decoder, norm=False) for _ in range(config.decoder_layers)
        )
        self.norm = RMSNorm(D, eps=decoder.eps)

    @property
    def stacks(self) -> list[Stack]:
        """The decoder's layers."""
        return [stack for stack in self.decoder if isinstance(stack, Stack)]

    @property
    def readers(self) -> list[BytesFromSlots]:
        """What stands before the decoder's layers, or before the first."""
        return [reader for reader in self.reads if isinstance(reader, BytesFromSlots)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Linears ~ N(0, 0.02), those that write to a residual stream scaled by the number of
        additions to it."""
        reset_linears(self, 1)
        local = self.encoder.height + len(self.reads) + 2 * len(self.decoder)
        for part in (self.encoder, self.gather, self.reads, self.decoder):
            reset_linears(part, local)
        self.main_network.reset_linears(self.main_network.height)

    # -- whole rows --------------------------------------------------------------------------------

    def encode(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        """The local encoder (section 3.2)."""
        return self.encoder(x_BLD, segments)

    def forward(self, h_BLD: Tensor, ends_BL: Tensor, segments: Segments) -> Tensor:
        """From the encoder's output; patches end where `ends` says."""
        plan = plan_of(ends_BL, segments)
        z = self.main_network(self._pool(h_BLD, plan), plan.segments())
        return self._decode(h_BLD, self._narrowed(z), plan.reads.clamp(min=0), segments)

    def _pool(self, h_BLD: Tensor, plan: ChunkPlan) -> Tensor:
        """(B, C, G): slots begin as a projection of the maximum over the patch (section 3.2.2)."""
        k, D = self.config.slots, self.config.d_local
        slots = self.slots(plan.max(h_BLD)).unflatten(-1, (k, D))
        slots = slots + self.gather(slots, h_BLD, plan)
        return self.widen(slots.flatten(2))

    def pool_padded(self, h_NMD: Tensor, lengths: Tensor) -> Tensor:
        """The same of N patches of lengths[n] of M bytes each: (N, G)."""
        inside = torch.arange(h_NMD.shape[1], device=lengths.device) < lengths[:, None]
        largest = h_NMD.masked_fill(~inside[..., None], -torch.inf).amax(1)
        slots = self.slots(largest).unflatten(-1, (self.config.slots, -1))
        slots = slots + self.gather.padded(slots, h_NMD, lengths)
        return self.widen(slots.flatten(1))

    def _narrowed(self, z: Tensor) -> Tensor:
        """(..., k, D): a patch as the decoder sees it."""
        return self.narrow(z).unflatten(-1, (self.config.slots, self.config.d_local))

    def _decode(
        self, h: Tensor, slots_BCkD: Tensor, reads_BL: Tensor, segments: Segments
    ) -> Tensor:
        """The local decoder (section 3.3); it begins with the encoder's output."""
        for i, stack in enumerate(self.stacks):
            h = stack(self._look(i, h, slots_BCkD, reads_BL), segments)
        return self.norm(h)

    def _look(self, i: int, h: Tensor, slots_BCkD: Tensor, reads_BL: Tensor) -> Tensor:
        """Bytes before layer i of the decoder look at the patch that each of them reads."""
        if i >= len(self.reads):
            return h
        return h + self.reads[i](h, slots_BCkD, reads_BL)

    # -- decoding ----------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> PatchState:
        weight, D = self.narrow.weight, self.config.d_local
        exact = torch.promote_types(weight.dtype, torch.float32)
        return PatchState(
            encoder=self.encoder.init_state(batch_size),
            open=Memory(
                weight.new_zeros(batch_size, 0, D, dtype=exact),
                weight.new_zeros(batch_size, dtype=torch.long),
            ),
            inner=self.main_network.init_state(batch_size),
            read=weight.new_zeros(batch_size, self.config.slots, D),
            decoder=tuple(stack.init_state(batch_size) for stack in self.stacks),
        )

    def extend(
        self,
        h_BLD: Tensor,
        ends_BL: Tensor,
        counts: Tensor | None,
        encoder: StackState,
        state: PatchState,
    ) -> tuple[Tensor, PatchState]:
        """Feed counts[b] >= 1 (None = L) more positions of each row, as the encoder left them and
        with its state after them; -> (outputs (B, L, D), new state)."""
        B, L = ends_BL.shape
        if counts is None:
            counts = torch.full_like(state.open.lengths, L)
        ends_BL = ends_BL & (torch.arange(L, device=counts.device) < counts[:, None])
        joined, ends = _behind(state.open, h_BLD, ends_BL)
        lengths = state.open.lengths + counts
        closed_B = ends.sum(1)
        slots, inner = self._inner_extend(joined, ends, lengths, state)
        reads_BL = ends_BL.cumsum(1)  # 0 = the one before these
        h, decoder = h_BLD, []
        for i, (stack, before) in enumerate(zip(self.stacks, state.decoder, strict=True)):
            h, after = stack.extend(self._look(i, h, slots, reads_BL), counts, before)
            decoder.append(after)
        newest = slots[torch.arange(B, device=closed_B.device), closed_B]
        left = _left_open(joined, ends, lengths)
        return self.norm(h), PatchState(encoder, left, inner, newest, tuple(decoder))

    def _inner_extend(
        self, joined: Tensor, ends: Tensor, lengths: Tensor, state: PatchState
    ) -> tuple[Tensor, StackState]:
        """Run the global network on the patches that closed; -> (the slots of the newest one
        before, then of these: (B, 1 + C, k, D), its state)."""
        closed_B = ends.sum(1)
        C, inner = int(closed_B.max()), state.inner
        if C == 0:
            return state.read[:, None], inner
        rows = closed_B.nonzero()[:, 0]
        plan = plan_of(ends[rows], Segments(joined.shape[1], lengths[rows]), slots=1)
        patches, counts = self._pool(joined[rows], plan)[:, :C], closed_B[rows]
        if len(rows) == len(closed_B):
            z, inner = self.main_network.extend(patches, counts, inner)
        else:
            z, part = self.main_network.extend(patches, counts, inner.view(rows))
            inner = inner.scatter(rows, part)
        made = self._narrowed(z).to(state.read.dtype)
        slots = made.new_zeros(len(closed_B), C, *made.shape[2:]).index_copy(0, rows, made)
        return torch.cat((state.read[:, None], slots), dim=1), inner


def plan_of(ends_BL: Tensor, segments: Segments, *, slots: int = _SLOTS) -> ChunkPlan:
    """The patches that end there; each text begins with one."""
    starts = torch.ones_like(ends_BL)
    starts[:, 1:] = ends_BL[:, :-1]
    if segments.starts is not None:
        starts = starts | segments.starts
    if segments.valid is not None:
        starts = starts & segments.valid
    return ChunkPlan(
        starts,
        delay=1,
        document_ids=segments.document_ids,
        slots=slots,
        ends=ends_BL,
        lengths=segments.lengths,
    )


def _behind(open_: Memory, h_BLD: Tensor, ends_BL: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes of each row's open patch and the new ones behind them, (B, M + L, D), and where
    patches end among them."""
    B, L, D = h_BLD.shape
    M, device = int(open_.lengths.max()), h_BLD.device
    joined = h_BLD.new_zeros(B, M + L, D, dtype=open_.values.dtype)
    joined[:, :M] = open_.values[:, :M]
    index = open_.lengths[:, None] + torch.arange(L, device=device)
    joined.scatter_(1, index[..., None].expand(-1, -1, D), h_BLD.to(joined.dtype))
    ends = torch.zeros(B, M + L, dtype=torch.bool, device=device)
    ends.scatter_(1, index, ends_BL)
    return joined, ends


def _left_open(joined: Tensor, ends: Tensor, lengths: Tensor) -> Memory:
    """What of each row stands behind its last end."""
    index = torch.arange(1, ends.shape[1] + 1, device=ends.device)
    first = (ends * index).amax(1)  # position behind the last end
    left = lengths - first
    M = int(left.max())
    place = (first[:, None] + torch.arange(M, device=ends.device)).clamp(max=ends.shape[1] - 1)
    kept = joined.gather(1, place[..., None].expand(-1, -1, joined.shape[2]))
    return Memory(kept, left)
