"""H-Net: a byte model that learns where to cut (Hwang, Wang & Gu 2025, arXiv:2507.07955).

The layout nests as the model does: `["m2", ["T4"], "m2"]` has one chunking stage, `["m28"]`
none and is MambaByte. With boundaries "fixed" or "space" instead of "learned" it is the fixed-pool
or a SpaceByte-like baseline; "given" takes chunk starts from the batch or after chosen bytes. This
file is the language model: table and head are `arch/backbone.py`, the body is in `levels.py`.
Parameter names are those of the released checkpoints.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bytelm.arch.backbone import BackboneModel, BodyOutput, BodySteps
from bytelm.arch.base import ParameterRole, Symptom
from bytelm.arch.chunk_stats import stage_stats
from bytelm.arch.hnet.config import USUAL_CHUNK, HNetConfig, unnest
from bytelm.arch.hnet.levels import ChunkLevel, Level, make_level
from bytelm.arch.hnet.steps import level_steps
from bytelm.arch.hnet.telemetry import stage_symptoms
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import imitation_loss, ratio_loss, starts_on_bytes
from bytelm.nn.segments import Segments
from bytelm.nn.stack import stack_flops
from bytelm.nn.state import State
from bytelm.nn.tables import id_map
from bytelm.vocab import ByteVocab, Vocab


class HNet(BackboneModel[State]):
    """The language model around the hierarchy: byte table, levels, untied head."""

    Config = HNetConfig
    config: HNetConfig
    backbone: Level

    def __init__(self, config: HNetConfig, vocab: Vocab):
        reads_bytes = {"space", "words"} & set(config.boundaries)
        if not isinstance(vocab, ByteVocab) and (reads_bytes or config.given_after):
            raise BytelmError(
                "the boundaries 'space' and 'words' and given_after read bytes: they cannot be "
                "used with data.tokenizer"
            )
        super().__init__(
            config,
            vocab,
            dim=config.d_model[0],
            make_body=lambda: make_level(config, 0),
            ids=id_map("hnet" if config.released_ids else "own", vocab),
        )
        self.targets = list(config.anneal_from or config.target)

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        x, traces = self.backbone(x_BLD, segments, batch)
        aux: dict[str, Tensor] = {}
        stats: dict[str, Tensor | float] = {}
        for s, trace in enumerate(traces):
            stats |= stage_stats(s, trace.plan, trace.valid, p=trace.p)
            if trace.p is None:
                continue
            if trace.taught:
                aux[f"imitation{s}"] = imitation_loss(trace.p, trace.plan.starts, trace.valid)
                continue
            ratio = ratio_loss(trace.p, trace.plan.starts, trace.valid, self.targets[s])
            if self.config.ratio_weight:
                aux[f"ratio{s}"] = self.config.ratio_weight * ratio.loss
            stats |= {f"stage{s}/G": ratio.G, f"stage{s}/ratio_loss": ratio.loss.detach()}
            stats[f"stage{s}/target"] = self.targets[s]
        return BodyOutput(x=x, aux=aux, stats=stats)

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: State, batch: Batch
    ) -> tuple[Tensor, State]:
        return self.backbone.extend(x_BLD, counts, state, batch)

    def body_steps(self, state: State, rows: int, *, compiled: bool) -> BodySteps:
        return level_steps(self.backbone, state, rows, compiled=compiled)

    def init_body(self, batch_size: int) -> State:
        return self.backbone.init_state(batch_size)

    def reset_body(self) -> None:
        self.backbone.reset_parameters(0)

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L) per chunking stage, outermost first: the positions of `ids` at
        which its chunks start."""
        batch = Batch(ids=ids_BL)
        segments = Segments(ids_BL.shape[1])
        _, traces = self.backbone(self._embed(ids_BL), segments, batch)
        return starts_on_bytes([trace.plan for trace in traces])

    def progress(self, fraction: float) -> None:
        """Move the ratio loss's targets along their annealing line (`anneal_from` to `target`), and
        end the teaching of the routers (`taught_by`) when its share is over."""
        config = self.config
        for level in self.backbone.modules():
            if isinstance(level, ChunkLevel):
                level.teaching = fraction < config.taught_fraction
        if config.anneal_from:
            done = min(1.0, fraction / config.anneal_fraction)
            pairs = zip(config.anneal_from, config.target, strict=True)
            self.targets = [start + done * (end - start) for start, end in pairs]

    def symptoms(self, stats: Mapping[str, float]) -> list[Symptom]:
        """Learned stages with almost no chunks, or with one at every position."""
        return [found for s in range(self.config.stages) for found in stage_symptoms(s, stats)]

    def body_flops(self, context_bytes: int) -> float:
        """Forward operations of the body per byte with chunks of the target length (`target`; 6
        bytes without one, the average of SpaceByte's rule over English)."""
        config, layouts = self.config, unnest(self.config.layout)
        total, rate = 0.0, 1.0
        for s in range(config.stages + 1):
            options = config.stack_options(s)
            for at in {s, 2 * config.stages - s}:
                total += rate * stack_flops(layouts[at], options, context_bytes * rate)
            if s < config.stages:
                projections = 3 if config.boundary_rules[s] == "learned" else 1
                total += rate * projections * 2 * options.dim**2
                rate /= config.target[s] if config.target else USUAL_CHUNK
        return total

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        stage = min(name.count("main_network."), self.config.stages)
        factor = self.config.stage_lr_multipliers[stage]
        role = super().parameter_role(name, parameter)
        if "routing_module" in name or "residual_proj" in name:
            role = ParameterRole(kind="other", decay=parameter.ndim > 1)
        return replace(role, lr_multiplier=factor * role.lr_multiplier)
