"""H-Net's levels: encoder -> router -> chunks -> inner level -> smoothing, upsampling -> decoder.

Equation and section numbers are those of Hwang, Wang & Gu 2025 (arXiv:2507.07955). Each level has
a parallel form (`forward`) and a decoding form (`extend`), which feeds any number of positions to a
state; a decoding step is `extend` with one. What a reader may question:

* `routing_module` is the boundary rule, whatever it is (`nn/boundaries.py`); only the learned one
  has weights, under the names of the released checkpoints, and only with it are chunks smoothed.
* The smoothing sees P clamped to 1 - 1e-4, but the ratio loss and the confidence see p itself.
* Only the outermost level hands a batch to its rule: inside, positions are chunks, not bytes.

Shape letters: B rows, L positions of the level, C chunks, D width of the level.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bytelm.arch.hnet.config import HNetConfig, unnest
from bytelm.data.batch import Batch
from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import BoundaryRule, Cuts, RuleOptions, Stretch
from bytelm.nn.chunking import ChunkPlan, confidence_ste, smooth, upsample
from bytelm.nn.linear import Linear
from bytelm.nn.pooling import FirstByte
from bytelm.nn.segments import Segments, last_valid
from bytelm.nn.stack import Stack, StackState
from bytelm.nn.state import State, extend_rows

_SLOTS = 32  # chunk slots are rounded up to it in the parallel form: see `ChunkPlan`


@dataclass(frozen=True)
class StageTrace:
    """What one chunking stage did: plan over its own sequence, p (B, L) or None, valid (B, L) or
    None = all; taught: whether another rule than that of p made the plan."""

    plan: ChunkPlan
    p: Tensor | None
    valid: Tensor | None
    taught: bool = False


@dataclass(frozen=True)
class LevelState(State):
    """State of a chunking level: position (B,) counts the positions seen, `rule` is the boundary
    rule's own state, smoothed (B, D) the chunk vector that positions read now."""

    encoder: StackState
    position: Tensor
    rule: State
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
        self, x_BLD: Tensor, segments: Segments, batch: Batch | None
    ) -> tuple[Tensor, list[StageTrace]]:
        """-> (outputs (B, L, D outer), traces of this level and all inside it, outermost first).

        batch is where the positions come from, at the outermost level only.
        """

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The empty decode state of this level and all inside it."""

    @abstractmethod
    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: Any, batch: Batch | None
    ) -> tuple[Tensor, State]:
        """Feed counts[b] >= 1 (None = L) more positions of each row; -> (outputs, new state).

        batch holds the ids of these positions, at the outermost level only.
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
        self, x_BLD: Tensor, segments: Segments, batch: Batch | None
    ) -> tuple[Tensor, list[StageTrace]]:
        return self.main_network(self._widen(x_BLD), segments)[..., : self.outer_dim], []

    def init_state(self, batch_size: int) -> StackState:
        return self.main_network.init_state(batch_size)

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: StackState, batch: Batch | None
    ) -> tuple[Tensor, StackState]:
        y, state = self.main_network.extend(self._widen(x_BLD), counts, state)
        return y[..., : self.outer_dim], state

    def reset_parameters(self, residual_adds: int) -> None:
        self.main_network.reset_linears(residual_adds + self.main_network.height)


class ChunkLevel(Level):
    """Encoder, chunking, inner level, smoothing and upsampling, decoder."""

    pooler = FirstByte()  # section 2.2.1: a chunk is its first position, no pooling

    def __init__(self, config: HNetConfig, s: int):
        super().__init__(config, s)
        strings = unnest(config.layout)
        self.encoder = Stack(strings[s], config.stack_options(s))
        self.main_network = make_level(config, s + 1)
        self.decoder = Stack(strings[len(strings) - 1 - s], config.stack_options(s))
        options = RuleOptions(
            dim=self.dim,
            stride=int(config.target[s]) if config.target else 0,
            after=config.given_after,
        )
        self.routing_module: BoundaryRule = RULES[config.boundary_rules[s]](options)
        self.teacher: BoundaryRule | None = None
        if config.taught_by:
            self.teacher = RULES[config.taught_by[s]](options)
        self.teaching = False  # whether the teacher cuts in training: `HNet.progress` says so
        self.residual_proj = Linear(self.dim, self.dim)

    @torch.no_grad()
    def reset_parameters(self, residual_adds: int) -> None:
        residual_adds += self.encoder.height + self.decoder.height
        self.encoder.reset_linears(residual_adds)
        self.decoder.reset_linears(residual_adds)
        self.main_network.reset_parameters(residual_adds)
        nn.init.zeros_(self.residual_proj.weight)
        nn.init.zeros_(self.residual_proj.bias)

    def forward(
        self, x_BLD: Tensor, segments: Segments, batch: Batch | None
    ) -> tuple[Tensor, list[StageTrace]]:
        encoded = self.encoder(self._widen(x_BLD), segments)
        stretch = _stretch(encoded, segments.positions(encoded.device), segments.lengths, batch)
        cuts, _ = self.routing_module.cut(
            stretch, self.routing_module.init_state(len(encoded), encoded)
        )
        taught = self.training and self.teaching
        if taught:
            assert self.teacher is not None
            own = cuts.p
            cuts, _ = self.teacher.cut(stretch, self.teacher.init_state(len(encoded), encoded))
            cuts = Cuts(cuts.starts, own)
        plan = ChunkPlan(
            cuts.starts, delay=self.pooler.delay, document_ids=segments.document_ids, slots=_SLOTS
        )
        inside = plan.segments()
        z, traces = self.main_network(self.pooler.pool(encoded, plan), inside, None)
        if cuts.p is not None:
            z = smooth(z, plan.select(cuts.p), document_ids=inside.document_ids)
        z = upsample(z, plan.reads, torch.zeros_like(z[:, 0]))
        y = self.decoder(self._join(z, encoded, cuts), segments)
        trace = StageTrace(plan, cuts.p, segments.valid, taught)
        return y[..., : self.outer_dim], [trace, *traces]

    def _join(self, z_BLD: Tensor, encoded_BLD: Tensor, cuts: Cuts) -> Tensor:
        """Upsampled chunks times the straight-through confidence, plus the linear skip (eq. 9),
        which stays in the precision of its weights under autocast, as in the released code."""
        if cuts.p is not None:
            z_BLD = z_BLD * confidence_ste(cuts.p, cuts.starts)[..., None]
        with torch.autocast(encoded_BLD.device.type, enabled=False):
            skipped = self.residual_proj(encoded_BLD)
        return z_BLD + skipped.to(z_BLD.dtype)

    def init_state(self, batch_size: int) -> LevelState:
        weight = self.residual_proj.weight
        return LevelState(
            encoder=self.encoder.init_state(batch_size),
            position=weight.new_zeros(batch_size, dtype=torch.long),
            rule=self.routing_module.init_state(batch_size, weight),
            inner=self.main_network.init_state(batch_size),
            smoothed=weight.new_zeros(batch_size, self.dim),
            decoder=self.decoder.init_state(batch_size),
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: LevelState, batch: Batch | None
    ) -> tuple[Tensor, LevelState]:
        L = x_BLD.shape[1]
        encoded, encoder = self.encoder.extend(self._widen(x_BLD), counts, state.encoder)
        positions = state.position[:, None] + torch.arange(L, device=encoded.device)
        stretch = _stretch(encoded, positions, counts, batch)
        cuts, rule = self.routing_module.cut(stretch, state.rule)
        plan = ChunkPlan(cuts.starts, delay=self.pooler.delay)
        z, inner = self._inner_extend(encoded, plan, state.inner)
        if cuts.p is not None and plan.width:
            z = smooth(z, plan.select(cuts.p), initial_BD=state.smoothed)
        z = upsample(z, plan.reads, state.smoothed.to(z.dtype))
        smoothed = last_valid(z, counts).to(state.smoothed.dtype)
        y, decoder = self.decoder.extend(self._join(z, encoded, cuts), counts, state.decoder)
        position = state.position + (L if counts is None else counts)
        after = LevelState(encoder, position, rule, inner, smoothed, decoder)
        return y[..., : self.outer_dim], after

    def _inner_extend(
        self, encoded_BLD: Tensor, plan: ChunkPlan, state: State
    ) -> tuple[Tensor, State]:
        """Run the inner level on the rows that start chunks, once per chunk; -> z (B, C, D)."""
        if plan.width == 0:
            return encoded_BLD.new_zeros(len(encoded_BLD), 0, self.dim), state
        chunks = self.pooler.pool(encoded_BLD, plan)
        inner = self.main_network
        return extend_rows(lambda x, n, s: inner.extend(x, n, s, None), chunks, plan.counts, state)


def _stretch(
    encoded_BLD: Tensor, positions: Tensor, counts: Tensor | None, batch: Batch | None
) -> Stretch:
    """What the boundary rule of a level sees."""
    return Stretch(
        x=encoded_BLD,
        positions=positions,
        counts=counts,
        ids=None if batch is None else batch.ids,
        boundaries=None if batch is None else batch.boundaries,
    )


def make_level(config: HNetConfig, s: int) -> Level:
    """Level s of the hierarchy and all inside it."""
    return MainLevel(config, s) if s == config.stages else ChunkLevel(config, s)
