"""H-Net: a byte model that learns where to cut (Hwang, Wang & Gu 2025, arXiv:2507.07955).

The layout nests as the model does: `["m2", ["T4"], "m2"]` has one chunking stage, `["m28"]`
none and is MambaByte. With boundaries "fixed" or "space" instead of "learned" it is the fixed-pool
or a SpaceByte-like baseline; "given" takes chunk starts from the batch. This file is the language
model; the levels are in `hnet_levels.py`. Parameter names are those of the released checkpoints.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bytelm.arch.base import CausalModel, ModelOutput, ParameterRole, Symptom, causal_loss
from bytelm.arch.hnet_config import HNetConfig, unnest
from bytelm.arch.hnet_levels import StageTrace, last_fed, make_level
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.chunking import ratio_loss
from bytelm.nn.ranks import sum_over_ranks
from bytelm.nn.segments import Segments
from bytelm.nn.stack import stack_flops
from bytelm.nn.state import State
from bytelm.vocab import ByteVocab, Vocab


class HNet(CausalModel[State]):
    """The language model around the hierarchy: byte table, levels, untied head."""

    Config = HNetConfig

    def __init__(self, config: HNetConfig, vocab: Vocab):
        super().__init__(config, vocab)
        if not isinstance(vocab, ByteVocab) and (
            config.released_ids or "space" in config.boundaries
        ):
            raise BytelmError(
                "released_ids and the boundaries 'space' read bytes: they cannot be used with "
                "data.tokenizer"
            )
        self.config: HNetConfig = config
        rows = 256 if config.released_ids else vocab.size
        self.embeddings = nn.Embedding(rows, config.d_model[0])
        self.backbone = make_level(config, 0)
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
        aux: dict[str, Tensor] = {}
        stats: dict[str, Tensor | float] = {}
        for s, trace in enumerate(traces):
            stats |= _stage_stats(s, trace)
            if trace.p is None:
                continue
            ratio = ratio_loss(trace.p, trace.plan.starts, trace.valid, self.targets[s])
            if self.config.ratio_weight:
                aux[f"ratio{s}"] = self.config.ratio_weight * ratio.loss
            stats |= {f"stage{s}/G": ratio.G, f"stage{s}/ratio_loss": ratio.loss.detach()}
            stats[f"stage{s}/target"] = self.targets[s]
        loss = causal_loss(logits, batch.targets)
        return ModelOutput(logits=logits, loss=loss, aux=aux, stats=stats)

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L) a chunking stage, outermost first: the positions of `ids` at
        which its chunks start."""
        segments = Segments(ids_BL.shape[1])
        _, traces = self.backbone(self._embed(ids_BL), segments, Batch(ids=ids_BL))
        found: list[Tensor] = []
        for trace in traces:
            starts = trace.plan.starts
            if found:  # back from chunks of the stage outside to the bytes where those start
                outer, inside = found[-1], torch.zeros_like(found[-1])
                rows, chunk = outer.nonzero()[:, 0], (outer.cumsum(1) - 1)[outer]
                inside[outer] = starts[rows, chunk]
                starts = inside
            found.append(starts)
        return found

    def init_state(self, batch_size: int) -> State:
        return self.backbone.init_state(batch_size)

    def prefill(self, ids: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self.backbone.extend(self._embed(ids), counts, state, ids)
        return self._head(last_fed(x, counts)), state

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        ids_B1 = ids[:, None]
        x, state = self.backbone.extend(self._embed(ids_B1), None, state, ids_B1)
        return self._head(x[:, 0]), state

    def progress(self, fraction: float) -> None:
        """Move the ratio loss's targets along their annealing line (`anneal_from` to `target`)."""
        config = self.config
        if config.anneal_from:
            done = min(1.0, fraction / config.anneal_fraction)
            pairs = zip(config.anneal_from, config.target, strict=True)
            self.targets = [start + done * (end - start) for start, end in pairs]

    def symptoms(self, stats: Mapping[str, float]) -> list[Symptom]:
        """Two traps that the loss alone does not show: a learned stage with almost no chunks (the
        inner network starves) and one that cuts at every position (a slow flat model)."""
        found = []
        for s in range(self.config.stages):
            share, target = stats.get(f"stage{s}/F"), stats.get(f"stage{s}/target", 0.0)
            if share is None or target <= 1:
                continue
            if share < 1 / (4 * target):
                found.append(_starved(s, share, target))
            if share > 0.9:
                found.append(_flat(s, share, target))
        return found

    def flops_per_byte(self, context_bytes: int) -> float:
        """Forward operations per byte with chunks of the target length (`target`; 6 bytes for
        the space rule, the SpaceByte paper's English average)."""
        config, layouts = self.config, unnest(self.config.layout)
        total, rate = 2.0 * config.d_model[0] * self.lm_head.out_features, 1.0
        for s in range(config.stages + 1):
            options = config.stack_options(s)
            for at in {s, 2 * config.stages - s}:
                total += rate * stack_flops(layouts[at], options, context_bytes * rate)
            if s < config.stages:
                projections = 3 if config.boundary_rules[s] == "learned" else 1
                total += rate * projections * 2 * options.dim**2
                rate /= config.target[s] if config.target else 6.0
        return total

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        stage = min(name.count("main_network."), self.config.stages)
        factor = self.config.stage_lr_multipliers[stage]
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", lr_multiplier=factor, decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head", lr_multiplier=factor)
        if parameter.ndim == 2 and "routing_module" not in name and "residual_proj" not in name:
            return ParameterRole(kind="matrix", lr_multiplier=factor)
        return ParameterRole(kind="other", lr_multiplier=factor, decay=parameter.ndim > 1)

    def _embed(self, ids: Tensor) -> Tensor:
        if not self.config.released_ids:
            return self.embeddings(ids)
        bad = (ids > self.vocab.bos) | (ids == 254) | (ids == 255)
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
        full = logits.new_full((*logits.shape[:-1], self.vocab.size), -torch.inf)
        full[..., :254] = logits[..., :254]
        full[..., self.vocab.bos], full[..., self.vocab.eos] = logits[..., 254], logits[..., 255]
        return full


def _stage_stats(s: int, trace: StageTrace) -> dict[str, Tensor | float]:
    """Telemetry of one stage over all ranks: F, mean chunk length, and the share of undecided
    probabilities."""
    starts, valid = trace.plan.starts, trace.valid
    positions = torch.tensor(starts.numel()) if valid is None else valid.sum()
    counts = [starts.sum(), positions.to(starts.device)]
    if trace.p is not None:
        undecided = (trace.p.detach() - 0.5).abs() < 0.05
        counts.append((undecided if valid is None else undecided & valid).sum())
    found, total, *undecided_total = sum_over_ranks(torch.stack(counts).double())
    stats: dict[str, Tensor | float] = {
        f"stage{s}/F": found / total,
        f"stage{s}/chunk_bytes": total / found,
    }
    if undecided_total:
        stats[f"stage{s}/near_half"] = undecided_total[0] / total
    return stats


def _starved(s: int, share: float, target: float) -> Symptom:
    return Symptom(
        name=f"stage{s}/starved",
        finding=f"stage{s} hardly cuts any more: a chunk is {1 / max(share, 1e-9):.0f} positions "
        f"long (target {target:g})",
        advice="The inner network sees almost nothing. Raise the weight of the ratio loss, lower "
        "the learning rate of that stage, or anneal the target up from a small value",
    )


def _flat(s: int, share: float, target: float) -> Symptom:
    return Symptom(
        name=f"stage{s}/flat",
        finding=f"stage{s} cuts at {share:.0%} of all positions (target: one in {target:g})",
        advice="So nothing is compressed and every step is slow. Raise the weight of the ratio "
        "loss, give the outer layers more width, or check that the data is not incompressible "
        "(encrypted, compressed)",
    )
