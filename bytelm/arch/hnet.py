"""H-Net: a byte model that learns where to cut (Hwang, Wang & Gu 2025, arXiv:2507.07955).

A stage is encoder -> router -> chunks -> inner network -> smoothing and upsampling -> decoder; the
inner network is again a stage, or the main network. The layout language nests the same way:
`["m2", ["T4"], "m2"]` has one stage, `["m28"]` none and is MambaByte. Parameter names are those of
the released checkpoints. What a reader may question:

* The router takes the *previous* position through `q_proj_layer` (as the code, not the paper).
* The smoothing sees P clamped to 1 - 1e-4, but the loss and the confidence see p itself.
* With boundaries other than "learned" there is no router, P = 1 and no ratio loss: "fixed" and
  "space" give the fixed-pool and SpaceByte-like baselines, "given" takes them from the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.arch.base import ByteModel, ModelOutput, ParameterRole, causal_loss
from bytelm.arch.hnet_config import HNetConfig, unnest
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import (
    ChunkPlan,
    CosineRouter,
    confidence_ste,
    fixed_starts,
    ratio_loss,
    smooth,
    space_starts,
    upsample,
)
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackState
from bytelm.nn.state import State
from bytelm.vocab import ByteVocab


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
class StageState(State):
    """encoder, chunker, inner, smoothed (B, D inner chunk value), decoder; or the main stack."""

    encoder: StackState
    chunker: ChunkerState
    inner: State
    smoothed: Tensor
    decoder: StackState


class Stage(nn.Module):
    """One level of the hierarchy: (B, L, D outer) -> (B, L, D outer). Innermost: the main stack."""

    def __init__(self, config: HNetConfig, s: int):
        super().__init__()
        self.s = s
        strings = unnest(config.layout)
        options = config.stack_options(s)
        self.dim = options.dim
        self.outer_dim = config.d_model[s - 1] if s else self.dim
        self.pad_dimension: nn.Parameter | None = None
        if self.dim > self.outer_dim:
            self.pad_dimension = nn.Parameter(torch.zeros(self.dim - self.outer_dim))
        self.innermost = s == config.stages
        if self.innermost:
            self.main_network: Stack | Stage = Stack(strings[s], options)
            return
        self.rule = config.boundary_rules[s]
        self.stride = int(config.target[s]) if self.rule == "fixed" else 0
        self.encoder = Stack(strings[s], options)
        self.main_network = Stage(config, s + 1)
        self.decoder = Stack(strings[len(strings) - 1 - s], options)
        self.routing_module = CosineRouter(self.dim) if self.rule == "learned" else None
        self.residual_proj = nn.Linear(self.dim, self.dim)

    @torch.no_grad()
    def reset_parameters(self, residual_adds: int) -> None:
        """The published initialisation; `residual_adds` counts those of the stages outside."""
        if self.innermost:
            self.main_network.reset_linears(residual_adds + self.main_network.height)
            return
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
        """-> (outputs, traces of this stage and all inside it)."""
        x = self._widen(x_BLD)
        if self.innermost:
            return self.main_network(x, segments)[..., : self.outer_dim], []
        encoded = self.encoder(x, segments)
        starts, p = self._starts(encoded, segments, batch)
        plan = ChunkPlan(starts)
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
        B, L = encoded.shape[:2]
        p = None
        if self.routing_module is not None:
            p = self.routing_module(encoded, torch.zeros_like(encoded[:, 0]))
            starts = p > 0.5
        elif self.rule == "fixed":
            starts = fixed_starts(segments.positions(encoded.device), self.stride).expand(B, L)
        elif self.rule == "space":
            starts = space_starts(batch.ids, batch.ids[:, 0])
        elif batch.boundaries is None:
            raise BytelmError('the model has boundaries = "given", but the batch carries none')
        else:
            starts = batch.boundaries
        first = segments.starts
        if first is None:
            first = torch.zeros(1, L, dtype=torch.bool, device=encoded.device)
            first[:, 0] = True
        starts = starts | first
        if segments.valid is not None:
            starts = starts & segments.valid
        if p is not None:
            p = torch.where(first, torch.ones_like(p), p)
        return starts, p

    def _widen(self, x: Tensor) -> Tensor:
        if self.pad_dimension is None:
            return x
        pad = self.pad_dimension.to(x.dtype).expand(*x.shape[:-1], -1)
        return torch.cat((x, pad), dim=-1)

    def _join(self, z: Tensor, encoded: Tensor, p: Tensor | None, starts: Tensor) -> Tensor:
        """Upsampled chunks times the straight-through confidence, plus the linear skip."""
        if p is not None:
            z = z * confidence_ste(p, starts)[..., None]
        return z + self.residual_proj(encoded).to(z.dtype)

    # -- decoding --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> State:
        if self.innermost:
            return self.main_network.init_state(batch_size)
        weight = self.residual_proj.weight
        zeros = weight.new_zeros(batch_size, dtype=torch.long)
        return StageState(
            encoder=self.encoder.init_state(batch_size),
            chunker=ChunkerState(weight.new_zeros(batch_size, self.dim), zeros, zeros.clone()),
            inner=self.main_network.init_state(batch_size),
            smoothed=weight.new_zeros(batch_size, self.dim),
            decoder=self.decoder.init_state(batch_size),
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: State, ids_BL: Tensor
    ) -> tuple[Tensor, State]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs, new state)."""
        x = self._widen(x_BLD)
        if self.innermost:
            y, state = self.main_network.extend(x, counts, state)
            return y[..., : self.outer_dim], state
        assert isinstance(state, StageState)
        encoded, encoder = self.encoder.extend(x, counts, state.encoder)
        starts, p, chunker = self._next_starts(encoded, counts, state.chunker, ids_BL)
        plan = ChunkPlan(starts)
        z, inner = self._inner_extend(encoded, plan, state.inner, ids_BL)
        if p is None:
            smoothed = z
        elif plan.width:
            smoothed = smooth(z, plan.select(p), initial_BD=state.smoothed)
        else:
            smoothed = z.to(state.smoothed.dtype)
        up = upsample(smoothed, plan.opened, state.smoothed.to(smoothed.dtype))
        last = torch.full_like(plan.counts, x.shape[1]) if counts is None else counts
        held = up.gather(1, (last - 1)[:, None, None].expand(-1, 1, self.dim)).squeeze(1)
        y, decoder = self.decoder.extend(self._join(up, encoded, p, starts), counts, state.decoder)
        new = StageState(encoder, chunker, inner, held.to(state.smoothed.dtype), decoder)
        return y[..., : self.outer_dim], new

    def _next_starts(
        self, encoded: Tensor, counts: Tensor | None, state: ChunkerState, ids_BL: Tensor
    ) -> tuple[Tensor, Tensor | None, ChunkerState]:
        B, L = encoded.shape[:2]
        device = encoded.device
        added = torch.full_like(state.position, L) if counts is None else counts
        positions = state.position[:, None] + torch.arange(L, device=device)
        p = None
        if self.routing_module is not None:
            p = self.routing_module(encoded, state.last)
            starts = p > 0.5
            p = torch.where(positions == 0, torch.ones_like(p), p)
        elif self.rule == "fixed":
            starts = fixed_starts(positions, self.stride)
        elif self.rule == "space":
            starts = space_starts(ids_BL, state.last_id)
        else:
            raise BytelmError(
                'a model with boundaries = "given" cannot decode: nobody gives it the boundaries '
                "of bytes to come. Use a fixed stride (target) for records."
            )
        starts = (starts | (positions == 0)) & (torch.arange(L, device=device) < added[:, None])
        at = (added - 1)[:, None]
        last = encoded.gather(1, at[..., None].expand(-1, 1, self.dim)).squeeze(1)
        last_id = ids_BL.gather(1, at).squeeze(1) if ids_BL.shape[1] == L else state.last_id
        new = ChunkerState(last.to(state.last.dtype), state.position + added, last_id)
        return starts, p, new

    def _inner_extend(
        self, encoded: Tensor, plan: ChunkPlan, state: State, ids_BL: Tensor
    ) -> tuple[Tensor, State]:
        """Run the inner network on the rows that start chunks, once a chunk; -> (z (B, M, D))."""
        B = encoded.shape[0]
        z = encoded.new_zeros(B, plan.width, self.dim)
        if plan.width == 0:
            return z, state
        rows = plan.counts.nonzero().squeeze(1)
        chunks = plan.select(encoded)
        if len(rows) == B:
            out, state = self._run_inner(chunks, plan.counts, state, ids_BL)
            return out, state
        out, part = self._run_inner(chunks[rows], plan.counts[rows], state.view(rows), ids_BL)
        return z.to(out.dtype).index_copy(0, rows, out), state.scatter(rows, part)

    def _run_inner(
        self, chunks: Tensor, counts: Tensor, state: State, ids_BL: Tensor
    ) -> tuple[Tensor, State]:
        inner = self.main_network
        assert isinstance(inner, Stage)
        return inner.extend(chunks, None if chunks.shape[1] == 1 else counts, state, ids_BL[:, :0])


class HNet(ByteModel):
    """The language model around the hierarchy: byte table, stages, untied head."""

    Config = HNetConfig

    def __init__(self, config: HNetConfig, vocab: ByteVocab):
        super().__init__(config, vocab)
        self.config: HNetConfig = config
        rows = 256 if config.released_ids else vocab.size
        self.embeddings = nn.Embedding(rows, config.d_model[0])
        self.backbone = Stage(config, 0)
        self.lm_head = nn.Linear(config.d_model[0], rows, bias=False)
        self.targets = list(config.anneal_from or config.target)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Embedding N(0, 1), head N(0, 0.02), stacks as `Stack.reset_linears`, router identity."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.backbone.reset_parameters(0)

    def forward(self, batch: Batch) -> ModelOutput:
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        x, traces = self.backbone(self._embed(batch.ids), segments, batch)
        logits = self._head(x)
        aux, stats = {}, {}
        for s, trace in enumerate(traces):
            stats |= _stage_stats(s, trace)
            if trace.p is None:
                continue
            ratio = ratio_loss(trace.p, trace.plan.starts, trace.valid, self.targets[s])
            if self.config.ratio_weight:
                aux[f"ratio{s}"] = self.config.ratio_weight * ratio.loss
            stats |= {f"stage{s}/G": ratio.G, f"stage{s}/ratio_loss": ratio.loss.detach()}
            stats[f"stage{s}/target"] = self.targets[s]
        return ModelOutput(
            logits=logits, loss=causal_loss(logits, batch.targets), aux=aux, stats=stats
        )

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L) a stage: where its chunks start, in positions of `ids`."""
        batch = Batch(ids=ids_BL)
        _, traces = self.backbone(self._embed(ids_BL), Segments(ids_BL.shape[1]), batch)
        found: list[Tensor] = []
        for trace in traces:
            starts = trace.plan.starts
            if found:  # positions of the stage outside at which its chunks start
                outer = found[-1]
                inside = torch.zeros_like(outer)
                inside[outer] = starts[_slots(outer)]
                starts = inside
            found.append(starts)
        return found

    def init_state(self, batch_size: int) -> State:
        return self.backbone.init_state(batch_size)

    def prefill(self, ids: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(ids, counts, state)
        at = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])
        return self._head(x.gather(1, at).squeeze(1)), state

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        x, state = self._extend(ids[:, None], None, state)
        return self._head(x[:, 0]), state

    def progress(self, fraction: float) -> None:
        """Move the ratio loss's targets along their annealing line (`anneal_from` to `target`)."""
        config = self.config
        if config.anneal_from:
            done = min(1.0, fraction / config.anneal_fraction)
            pairs = zip(config.anneal_from, config.target, strict=True)
            self.targets = [start + done * (end - start) for start, end in pairs]

    def flops_per_byte(self, context_bytes: int) -> float:
        config = self.config
        total, rate = 2.0 * config.d_model[0] * self.lm_head.out_features, 1.0
        for s in range(config.stages + 1):
            options = config.stack_options(s)
            context = int(context_bytes * rate)
            stacks = [m for m in self._stage(s).children() if isinstance(m, Stack)]
            total += rate * sum(stack.flops(options, context) for stack in stacks)
            if s < config.stages:
                router = 3 if config.boundary_rules[s] == "learned" else 1
                total += rate * router * 2 * options.dim**2
                rate /= config.target[s] if config.target else 1
        return total

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        stage = min(name.count("main_network."), self.config.stages)
        multipliers = self.config.lr_multipliers
        factor = multipliers[stage] if multipliers else 1.0
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", lr_multiplier=factor, decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head", lr_multiplier=factor)
        hidden = parameter.ndim == 2 and "routing_module" not in name
        kind = "matrix" if hidden and "residual_proj" not in name else "other"
        return ParameterRole(kind=kind, lr_multiplier=factor, decay=parameter.ndim > 1)

    def _stage(self, s: int) -> Stage:
        stage = self.backbone
        for _ in range(s):
            assert isinstance(stage.main_network, Stage)
            stage = stage.main_network
        return stage

    def _extend(self, ids: Tensor, counts: Tensor | None, state: State) -> tuple[Tensor, State]:
        return self.backbone.extend(self._embed(ids), counts, state, ids)

    def _embed(self, ids: Tensor) -> Tensor:
        if not self.config.released_ids:
            return self.embeddings(ids)
        bad = (ids > self.vocab.bos) | ((ids == 254) | (ids == 255))
        if bool(bad.any()):
            raise BytelmError(
                f"id {int(ids[bad][0])} cannot be fed to a released H-Net: its table uses rows 254 "
                "and 255 for BOS and EOS and has none for bytes 0xFE, 0xFF and other symbols"
            )
        rows = torch.where(ids == self.vocab.bos, 254, torch.where(ids == self.vocab.eos, 255, ids))
        return self.embeddings(rows)

    def _head(self, x: Tensor) -> Tensor:
        logits = self.lm_head(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not self.config.released_ids:
            return logits
        shape = (*logits.shape[:-1], self.vocab.size)
        full = logits.new_full(shape, -torch.inf)
        full[..., :254] = logits[..., :254]
        full[..., self.vocab.bos], full[..., self.vocab.eos] = logits[..., 254], logits[..., 255]
        return full


def _slots(starts_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (row, chunk) of every start, in the order in which a bool mask visits them."""
    rows = starts_BL.nonzero()[:, 0]
    return rows, (starts_BL.cumsum(1) - 1)[starts_BL]


def _stage_stats(s: int, trace: StageTrace) -> dict[str, Tensor | float]:
    """Telemetry of one stage: F, mean chunk length, and the share of undecided probabilities."""
    starts, valid = trace.plan.starts, trace.valid
    positions = starts.numel() if valid is None else valid.sum()
    share = starts.sum() / positions
    stats: dict[str, Tensor | float] = {f"stage{s}/F": share, f"stage{s}/chunk_bytes": 1 / share}
    if trace.p is not None:
        p = trace.p.detach()
        undecided = ((p - 0.5).abs() < 0.05) if valid is None else ((p - 0.5).abs() < 0.05) & valid
        stats[f"stage{s}/near_half"] = undecided.sum() / positions
    return stats
