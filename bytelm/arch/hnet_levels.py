"""H-Net's levels: encoder -> router -> chunks -> inner level -> smoothing, upsampling -> decoder.

Equation and section numbers are those of Hwang, Wang & Gu 2025 (arXiv:2507.07955). Each level has
a parallel form (`forward`) and a decoding form (`extend`), which feeds any number of positions to a
state; a decoding step is `extend` with one. What a reader may question:

* The router takes the *previous* position through `q_proj_layer` (as the code, not the paper).
* The smoothing sees P clamped to 1 - 1e-4, but the ratio loss and the confidence see p itself.
* With boundaries other than "learned" there is no router and P = 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bytelm.arch.hnet_config import HNetConfig, unnest
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import (
    ChunkPlan,
    CosineRouter,
    confidence_ste,
    fixed_starts,
    smooth,
    space_starts,
    upsample,
)
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackState
from bytelm.nn.state import State


@dataclass(frozen=True)
class StageTrace:
    """What one chunking stage did: plan over its own sequence, p (B, L) or None, valid (B, L)."""

    plan: ChunkPlan
    p: Tensor | None
    valid: Tensor | None


@dataclass(frozen=True)
class ChunkerState(State):
    """last (B, D) encoder output, position (B,) = positions seen, last_id (B,)."""

    last: Tensor
    position: Tensor
    last_id: Tensor


@dataclass(frozen=True)
class LevelState(State):
    """State of a chunking level; `smoothed` (B, D) is the chunk value that bytes read now."""

    encoder: StackState
    chunker: ChunkerState
    inner: State
    smoothed: Tensor
    decoder: StackState


class Level(nn.Module, ABC):
    """One level of the hierarchy: (B, L, D outer) -> (B, L, D outer).

    On entering, rows are widened by one shared trainable vector; on leaving, the first `outer_dim`
    channels are kept (section 2.3).
    """

    def __init__(self, config: HNetConfig, s: int):
        super().__init__()
        self.dim = config.d_model[s]
        self.outer_dim = config.d_model[s - 1] if s else self.dim
        self.pad_dimension: nn.Parameter | None = None
        if self.dim > self.outer_dim:
            self.pad_dimension = nn.Parameter(torch.zeros(self.dim - self.outer_dim))

    @abstractmethod
    def forward(
        self, x_BLD: Tensor, segments: Segments, batch: Batch
    ) -> tuple[Tensor, list[StageTrace]]:
        """-> (outputs, traces of this level and all inside it)."""

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The empty decode state of this level and all inside it."""

    @abstractmethod
    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: Any, ids_BL: Tensor | None
    ) -> tuple[Tensor, State]:
        """Feed counts[b] >= 1 (None = L) more positions of each row; -> (outputs, new state).

        ids (B, L) are the bytes themselves, for rules that look at them (outermost level only).
        """

    @abstractmethod
    def reset_parameters(self, residual_adds: int) -> None:
        """The published initialisation; `residual_adds` counts those of the levels outside."""

    def _widen(self, x: Tensor) -> Tensor:
        if self.pad_dimension is None:
            return x
        pad = self.pad_dimension.to(x.dtype).expand(*x.shape[:-1], -1)
        return torch.cat((x, pad), dim=-1)


class MainLevel(Level):
    """The innermost level: the main network."""

    def __init__(self, config: HNetConfig, s: int):
        super().__init__(config, s)
        self.main_network = Stack(unnest(config.layout)[s], config.stack_options(s))

    def forward(
        self, x_BLD: Tensor, segments: Segments, batch: Batch
    ) -> tuple[Tensor, list[StageTrace]]:
        return self.main_network(self._widen(x_BLD), segments)[..., : self.outer_dim], []

    def init_state(self, batch_size: int) -> StackState:
        return self.main_network.init_state(batch_size)

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: StackState, ids_BL: Tensor | None
    ) -> tuple[Tensor, StackState]:
        y, state = self.main_network.extend(self._widen(x_BLD), counts, state)
        return y[..., : self.outer_dim], state

    def reset_parameters(self, residual_adds: int) -> None:
        self.main_network.reset_linears(residual_adds + self.main_network.height)


class ChunkLevel(Level):
    """Encoder, chunking, inner level, smoothing and upsampling, decoder."""

    def __init__(self, config: HNetConfig, s: int):
        super().__init__(config, s)
        strings = unnest(config.layout)
        self.rule = config.boundary_rules[s]
        self.stride = int(config.target[s]) if self.rule == "fixed" else 0
        self.encoder = Stack(strings[s], config.stack_options(s))
        self.main_network = make_level(config, s + 1)
        self.decoder = Stack(strings[len(strings) - 1 - s], config.stack_options(s))
        self.routing_module = CosineRouter(self.dim) if self.rule == "learned" else None
        self.residual_proj = nn.Linear(self.dim, self.dim)

    @torch.no_grad()
    def reset_parameters(self, residual_adds: int) -> None:
        residual_adds += self.encoder.height + self.decoder.height
        self.encoder.reset_linears(residual_adds)
        self.decoder.reset_linears(residual_adds)
        self.main_network.reset_parameters(residual_adds)
        nn.init.zeros_(self.residual_proj.weight)
        nn.init.zeros_(self.residual_proj.bias)

    # -- the parallel form ---------------------------------------------------------------------

    def forward(
        self, x_BLD: Tensor, segments: Segments, batch: Batch
    ) -> tuple[Tensor, list[StageTrace]]:
        encoded = self.encoder(self._widen(x_BLD), segments)
        starts, p = self._starts(encoded, segments, batch)
        plan = ChunkPlan(starts, slots=32)
        documents = segments.document_ids
        inner_documents = None if documents is None else plan.select(documents)
        inner_segments = Segments(plan.width, plan.counts, inner_documents)
        z, traces = self.main_network(plan.select(encoded), inner_segments, batch)
        if p is not None:
            z = smooth(z, plan.select(p), document_ids=inner_documents)
        z = upsample(z, plan.opened, torch.zeros_like(z[:, 0]))
        y = self.decoder(self._join(z, encoded, p, starts), segments)
        return y[..., : self.outer_dim], [StageTrace(plan, p, segments.valid), *traces]

    def _starts(
        self, encoded: Tensor, segments: Segments, batch: Batch
    ) -> tuple[Tensor, Tensor | None]:
        """Chunk starts (B, L) bool, and p (B, L) if they are learned."""
        p = None
        if self.routing_module is not None:
            p = self.routing_module(encoded, torch.zeros_like(encoded[:, 0]))
            starts = p > 0.5
        elif self.rule == "fixed":
            starts = fixed_starts(segments.positions(encoded.device), self.stride)
        elif self.rule == "space":
            starts = space_starts(batch.ids, batch.ids[:, 0])
        elif batch.boundaries is None:
            raise BytelmError('the model has boundaries = "given", but the batch carries none')
        else:
            starts = batch.boundaries
        first = segments.starts
        if first is None:
            first = torch.arange(encoded.shape[1], device=encoded.device) == 0
        if p is not None:
            p = torch.where(first, torch.ones_like(p), p)
        starts = (starts | first).expand(encoded.shape[:2])
        return starts if segments.valid is None else starts & segments.valid, p

    def _join(self, z: Tensor, encoded: Tensor, p: Tensor | None, starts: Tensor) -> Tensor:
        """Upsampled chunks times the straight-through confidence, plus the linear skip (eq. 9)."""
        if p is not None:
            z = z * confidence_ste(p, starts)[..., None]
        return z + self.residual_proj(encoded).to(z.dtype)

    # -- decoding --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> LevelState:
        weight = self.residual_proj.weight
        zeros = weight.new_zeros(batch_size, dtype=torch.long)
        return LevelState(
            encoder=self.encoder.init_state(batch_size),
            chunker=ChunkerState(weight.new_zeros(batch_size, self.dim), zeros, zeros.clone()),
            inner=self.main_network.init_state(batch_size),
            smoothed=weight.new_zeros(batch_size, self.dim),
            decoder=self.decoder.init_state(batch_size),
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: LevelState, ids_BL: Tensor | None
    ) -> tuple[Tensor, LevelState]:
        encoded, encoder = self.encoder.extend(self._widen(x_BLD), counts, state.encoder)
        starts, p, chunker = self._next_starts(encoded, counts, state.chunker, ids_BL)
        plan = ChunkPlan(starts)
        z, inner = self._inner_extend(encoded, plan, state.inner)
        if p is not None and plan.width:
            z = smooth(z, plan.select(p), initial_BD=state.smoothed)
        z = upsample(z, plan.opened, state.smoothed.to(z.dtype))
        smoothed = last_fed(z, counts).to(state.smoothed.dtype)
        y, decoder = self.decoder.extend(self._join(z, encoded, p, starts), counts, state.decoder)
        return y[..., : self.outer_dim], LevelState(encoder, chunker, inner, smoothed, decoder)

    def _next_starts(
        self,
        encoded: Tensor,
        counts: Tensor | None,
        state: ChunkerState,
        ids_BL: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, ChunkerState]:
        """`_starts` for positions that follow a state, and the chunker's new state."""
        L = encoded.shape[1]
        offset = torch.arange(L, device=encoded.device)
        positions = state.position[:, None] + offset
        first = positions == 0
        p = None
        if self.routing_module is not None:
            p = self.routing_module(encoded, state.last)
            starts = p > 0.5
            p = torch.where(first, torch.ones_like(p), p)
        elif self.rule == "fixed":
            starts = fixed_starts(positions, self.stride)
        elif self.rule == "space":
            assert ids_BL is not None, "the space rule exists at the outermost level only"
            starts = space_starts(ids_BL, state.last_id)
        else:
            raise BytelmError(
                'a model with boundaries = "given" cannot decode: nobody gives it the boundaries '
                "of bytes to come; use boundaries = 'fixed' and the record size as target"
            )
        starts = starts | first
        if counts is not None:
            starts = starts & (offset < counts[:, None])
        last_id = state.last_id if ids_BL is None else last_fed(ids_BL, counts)
        added = L if counts is None else counts
        last = last_fed(encoded, counts).to(state.last.dtype)
        return starts, p, ChunkerState(last, state.position + added, last_id)

    def _inner_extend(self, encoded: Tensor, plan: ChunkPlan, state: State) -> tuple[Tensor, State]:
        """Run the inner level on the rows that start chunks, once a chunk; -> z (B, M, D)."""
        if plan.width == 0:
            return encoded.new_zeros(len(encoded), 0, self.dim), state
        chunks, rows = plan.select(encoded), plan.counts.nonzero().squeeze(1)
        counts = None if plan.width == 1 else plan.counts[rows]
        if len(rows) == len(encoded):
            return self.main_network.extend(chunks, counts, state, None)
        out, part = self.main_network.extend(chunks[rows], counts, state.view(rows), None)
        z = out.new_zeros(len(encoded), plan.width, self.dim).index_copy(0, rows, out)
        return z, state.scatter(rows, part)


def last_fed(x: Tensor, counts: Tensor | None) -> Tensor:
    """x[b, counts[b] - 1] of (B, L, ...): what stands at each row's last fed position."""
    if counts is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), counts - 1]


def make_level(config: HNetConfig, s: int) -> Level:
    """Level s of the hierarchy and all inside it."""
    return MainLevel(config, s) if s == config.stages else ChunkLevel(config, s)
