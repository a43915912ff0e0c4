"""SpaceByte: a byte Transformer with a wide one in its middle that runs once per word (Slagle 2024,
arXiv:2404.14408).

    bytes -> local layers -> + global layers, at each chunk's first byte -> local layers -> head

A chunk starts at a space-like byte behind one that is not (`nn.boundaries.SpaceRule`). Its first
byte's vector, zero-padded on the left from d_local to d_model channels, is what the global layers
see; their last d_local channels are added to the same byte's vector, and later bytes get at them by
the windowed attention of the second local half. So everything is read at the byte where it is
written, and the model is causal without a lag.

What differs from the paper: rotary positions instead of learned ones, so that no row has too many
chunks (the released code leaves targets behind the last slot out of the loss); RMSNorm and SwiGLU
without biases, and a norm at the end of each of the three stacks, as in the other models here. A
window of W sees W earlier bytes and the byte itself. `boundaries` = "fixed" is the paper's ablation
with patches of equal length, "words" the rule of `nn.words`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.arch.backbone import BackboneModel, BodyOutput, NGramConfig
from bytelm.arch.base import Idle
from bytelm.arch.chunk_stats import stage_stats
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import RuleOptions, Stretch
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackOptions, StackState, stack_flops
from bytelm.nn.state import State, extend_rows
from bytelm.nn.stepping.boundaries import rule_steps
from bytelm.nn.stepping.stack import StackSteps
from bytelm.nn.unpooling import at_starts
from bytelm.vocab import ByteVocab, Vocab

_SLOTS = 32  # chunk slots are rounded up to it in the parallel form: see `ChunkPlan`
_USUAL_CHUNK = 6.0  # bytes per chunk of the space and word rules over English


class SpaceByteConfig(NGramConfig):
    """Sizes of a SpaceByte. The paper has d_model = 2 d_local, as many local layers as global ones
    and a window of d_local."""

    layers: int = Field(4, ge=1, description="global blocks, which run once per chunk")
    d_model: int = Field(256, ge=2, description="width of the global blocks")
    heads: int = Field(4, ge=1, description="attention heads of the global blocks")
    hidden: int = Field(0, ge=0, description="their SwiGLU width; 0 = 8/3 d_model rounded up to 64")
    local_layers: int = Field(
        4,
        ge=2,
        description="blocks that run at every byte: half before the global ones, half after",
    )
    d_local: int = Field(128, ge=2, description="their width, at most d_model")
    local_heads: int = Field(4, ge=1, description="their attention heads")
    local_hidden: int = Field(
        0, ge=0, description="their SwiGLU width; 0 = 8/3 d_local rounded up to 64"
    )
    window: int = Field(128, ge=-1, description="earlier bytes that local blocks see; -1 = all")
    qk_norm: bool = Field(True, description="unit-RMS queries and keys")
    boundaries: Literal["space", "words", "fixed"] = Field(
        "space",
        description="where chunks start: at space-like bytes behind others (the paper), at words "
        "with the blank in front, every `stride` bytes",
    )
    stride: int = Field(6, ge=1, description='bytes per chunk of boundaries = "fixed"')

    @model_validator(mode="after")
    def _consistent(self) -> "SpaceByteConfig":
        if self.d_local > self.d_model:
            raise ValueError(f"d_local {self.d_local} must not exceed d_model {self.d_model}")
        self.global_options(), self.local_options()
        return self

    def idle(self) -> Iterator[Idle]:
        """The stride of rules that have none, and tables that there are not."""
        yield from super().idle()
        if self.boundaries != "fixed":
            yield Idle(setting="stride", why=f"boundaries = {self.boundaries!r}")

    def global_options(self) -> StackOptions:
        """What the global stack is built with."""
        return StackOptions.transformer(
            self.d_model, heads=self.heads, hidden=self.hidden, qk_norm=self.qk_norm
        )

    def local_options(self) -> StackOptions:
        """What the two local stacks are built with."""
        return StackOptions.transformer(
            self.d_local,
            heads=self.local_heads,
            hidden=self.local_hidden,
            window=self.window,
            qk_norm=self.qk_norm,
        )

    @property
    def layouts(self) -> tuple[str, str, str]:
        """The three stacks in the layout language, in the order in which they run."""
        before = self.local_layers // 2
        return f"T{before}", f"T{self.layers}", f"T{self.local_layers - before}"


@dataclass(frozen=True)
class SpaceByteState(State):
    """position (B,) counts the bytes seen."""

    position: Tensor
    encoder: StackState
    rule: State
    inner: StackState
    decoder: StackState


class SpaceByteBody(nn.Module):
    """The three stacks and the rule."""

    def __init__(self, config: SpaceByteConfig):
        super().__init__()
        before, inner, after = config.layouts
        self.encoder = Stack(before, config.local_options())
        self.rule = RULES[config.boundaries](RuleOptions(dim=config.d_local, stride=config.stride))
        self.main_network = Stack(inner, config.global_options())
        self.decoder = Stack(after, config.local_options())
        self.missing = config.d_model - config.d_local  # channels that are zero on entry

    def widen(self, x: Tensor) -> Tensor:
        """(..., d_local) -> (..., d_model), zeros on the left."""
        return F.pad(x, (self.missing, 0))


class SpaceByte(BackboneModel[SpaceByteState]):
    """Byte table, the body above, head."""

    Config = SpaceByteConfig
    config: SpaceByteConfig
    backbone: SpaceByteBody

    def __init__(self, config: SpaceByteConfig, vocab: Vocab):
        if not isinstance(vocab, ByteVocab):
            raise BytelmError("spacebyte cuts bytes: it cannot be used with data.tokenizer")
        super().__init__(config, vocab, dim=config.d_local, make_body=lambda: SpaceByteBody(config))

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        body = self.backbone
        encoded = body.encoder(x_BLD, segments)
        positions = segments.positions(x_BLD.device)
        stretch = Stretch(x=encoded, positions=positions, counts=segments.lengths, ids=batch.ids)
        cuts, _ = body.rule.cut(stretch, body.rule.init_state(len(encoded), encoded))
        plan = ChunkPlan(
            cuts.starts,
            document_ids=segments.document_ids,
            slots=_SLOTS,
            lengths=segments.lengths,
        )
        z = body.main_network(body.widen(plan.select(encoded)), plan.segments())
        read = at_starts(z[..., body.missing :], plan)
        y = body.decoder(encoded + read, segments)
        return BodyOutput(x=y, stats=stage_stats(0, plan, segments.valid))

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: SpaceByteState, batch: Batch
    ) -> tuple[Tensor, SpaceByteState]:
        body, L = self.backbone, x_BLD.shape[1]
        encoded, encoder = body.encoder.extend(x_BLD, counts, state.encoder)
        positions = state.position[:, None] + torch.arange(L, device=encoded.device)
        stretch = Stretch(x=encoded, positions=positions, counts=counts, ids=batch.ids)
        cuts, rule = body.rule.cut(stretch, state.rule)
        plan, inner = ChunkPlan(cuts.starts), state.inner
        if plan.width:
            chunks = body.widen(plan.select(encoded))
            z, inner = extend_rows(body.main_network.extend, chunks, plan.counts, inner)
            encoded = encoded + at_starts(z[..., body.missing :], plan)
        y, decoder = body.decoder.extend(encoded, counts, state.decoder)
        position = state.position + (L if counts is None else counts)
        return y, SpaceByteState(position, encoder, rule, inner, decoder)

    def body_steps(self, state: SpaceByteState, rows: int, *, compiled: bool) -> "SpaceByteSteps":
        return SpaceByteSteps(self.backbone, state, rows, compiled=compiled)

    def init_body(self, batch_size: int) -> SpaceByteState:
        body, weight = self.backbone, self.lm_head.weight
        return SpaceByteState(
            position=weight.new_zeros(batch_size, dtype=torch.long),
            encoder=body.encoder.init_state(batch_size),
            rule=body.rule.init_state(batch_size, weight),
            inner=body.main_network.init_state(batch_size),
            decoder=body.decoder.init_state(batch_size),
        )

    def reset_body(self) -> None:
        body = self.backbone
        outside = body.encoder.height + body.decoder.height
        body.encoder.reset_linears(outside)
        body.decoder.reset_linears(outside)
        body.main_network.reset_linears(outside + body.main_network.height)

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L): the positions of `ids` at which chunks start."""
        rule, L = self.backbone.rule, ids_BL.shape[1]
        x = self._embed(ids_BL)
        positions = torch.arange(L, device=x.device)
        stretch = Stretch(x=x, positions=positions, ids=ids_BL)
        return [rule.cut(stretch, rule.init_state(len(x), x))[0].starts]

    def body_flops(self, context_bytes: int) -> float:
        """Forward operations of the body per byte, with 6 bytes per chunk where the text says
        where chunks start."""
        config = self.config
        before, inner, after = config.layouts
        size = config.stride if config.boundaries == "fixed" else _USUAL_CHUNK
        local = sum(stack_flops(k, config.local_options(), context_bytes) for k in (before, after))
        return local + stack_flops(inner, config.global_options(), context_bytes / size) / size


class SpaceByteSteps:
    """The body in place: the global stack runs for the rows that start a chunk now."""

    def __init__(self, body: SpaceByteBody, state: SpaceByteState, rows: int, *, compiled: bool):
        self._body = body
        self._encoder = StackSteps(body.encoder, state.encoder, rows, compiled=compiled)
        self._rule = rule_steps(body.rule, state.rule)
        self._inner = StackSteps(body.main_network, state.inner, rows, compiled=compiled)
        self._decoder = StackSteps(body.decoder, state.decoder, rows, compiled=compiled)
        self._position: list[int] = state.position.tolist()
        self.chunks = 0

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """As `BodySteps.step`."""
        x = self._encoder.step(x_nD, rows)
        numbers = range(len(self._position)) if rows is None else rows
        index = None if rows is None else torch.tensor(list(rows), device=x.device)
        positions = [self._position[b] for b in numbers]
        starts, _ = self._rule.cut(x, numbers, index, positions, ids)
        chosen = [i for i, at in enumerate(positions) if starts[i] or at == 0]
        for b in numbers:
            self._position[b] += 1
        if chosen:
            self.chunks += len(chosen)
            here = torch.tensor(chosen, device=x.device)
            everywhere = len(chosen) == len(self._position)
            inner_rows = None if everywhere else [numbers[i] for i in chosen]
            z = self._inner.step(self._body.widen(x.index_select(0, here)), inner_rows)
            x = x.index_add(0, here, z[:, self._body.missing :].to(x.dtype))
        return self._decoder.step(x, rows)

    def state(self) -> SpaceByteState:
        """The immutable state of all rows."""
        return SpaceByteState(
            position=torch.tensor(self._position, device=self._body.encoder.device),
            encoder=self._encoder.state(),
            rule=self._rule.state(),
            inner=self._inner.state(),
            decoder=self._decoder.state(),
        )
