"""MegaByte: a wide Transformer over patches of P bytes, a narrow one inside each (Yu et al. 2023,
arXiv:2305.07185).

The global model reads a patch as the P embeddings of its bytes side by side, P * D/P = D channels,
and predicts the next one: its output is cut into P slices again, which a linear map takes to the
width of the local model. That one predicts the bytes of a patch one after another from the slice of
each place and the byte before it, and begins anew with every patch, with a learned vector in the
place of a byte before. So what was before the patch reaches it through the slices alone.

In the words of chunk plans: the rule is `fixed`, whose ends are known, the pooler concatenates and
a chunk is read from its last byte on. The BOS is a patch of its own, which the global model sees as
a learned vector; byte 0 of the data begins the first whole patch. What differs from the paper:
rotary positions instead of learned ones in both models, RMSNorm, SwiGLU, no biases, and a norm at
the end of either stack, as in the other models here. P = 1 is a flat Transformer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bytelm.arch.backbone import BackboneModel, BodyOutput, NGramConfig
from bytelm.arch.base import ParameterRole
from bytelm.arch.chunk_stats import stage_stats
from bytelm.data.batch import Batch
from bytelm.nn.boundaries import FixedRule
from bytelm.nn.boundary_rule import RuleOptions, Stretch
from bytelm.nn.chunking import ChunkPlan, take
from bytelm.nn.linear import Linear
from bytelm.nn.segments import Segments
from bytelm.nn.stack import Stack, StackOptions, StackState, reset_linears, stack_flops
from bytelm.nn.state import State, extend_rows
from bytelm.nn.stepping.ops import linear
from bytelm.nn.stepping.stack import StackSteps
from bytelm.vocab import Vocab

_SLOTS = 8  # chunk slots are rounded up to it in the parallel form: see `ChunkPlan`


class MegaByteConfig(NGramConfig):
    """Sizes of a MegaByte."""

    patch: int = Field(8, ge=1, description="P, bytes per patch; divides d_model")
    layers: int = Field(4, ge=1, description="global blocks, which run once per patch")
    d_model: int = Field(256, ge=2, description="width of the global blocks")
    heads: int = Field(4, ge=1, description="attention heads of the global blocks")
    hidden: int = Field(0, ge=0, description="their SwiGLU width; 0 = 8/3 d_model rounded up to 64")
    local_layers: int = Field(2, ge=1, description="blocks inside patches, which run at every byte")
    d_local: int = Field(128, ge=2, description="their width")
    local_heads: int = Field(4, ge=1, description="their attention heads")
    local_hidden: int = Field(
        0, ge=0, description="their SwiGLU width; 0 = 8/3 d_local rounded up to 64"
    )
    qk_norm: bool = Field(True, description="unit-RMS queries and keys")

    @model_validator(mode="after")
    def _consistent(self) -> "MegaByteConfig":
        if self.d_model % self.patch:
            raise ValueError(f"patch {self.patch} must divide d_model {self.d_model}")
        self.global_options(), self.local_options()
        return self

    def global_options(self) -> StackOptions:
        """What the global stack is built with."""
        return StackOptions.transformer(
            self.d_model, heads=self.heads, hidden=self.hidden, qk_norm=self.qk_norm
        )

    def local_options(self) -> StackOptions:
        """What the local stack is built with."""
        return StackOptions.transformer(
            self.d_local, heads=self.local_heads, hidden=self.local_hidden, qk_norm=self.qk_norm
        )


@dataclass(frozen=True)
class MegaByteState(State):
    """position (B,) counts the bytes seen. The bytes that read the newest patch stand in P places,
    the one that closed it in place 0: their ids (B, P) and vectors (B, P, d_local); read (B, D) is
    the global output they read. Places not reached yet hold anything."""

    position: Tensor
    ids: Tensor
    x: Tensor
    read: Tensor
    inner: StackState


class MegaByteBody(nn.Module):
    """Both stacks and what is between them. Letters: C patches, P places, D and d widths."""

    def __init__(self, config: MegaByteConfig, rows: int):
        super().__init__()
        self.patch = config.patch
        share = config.d_model // config.patch
        self.rule = FixedRule(RuleOptions(dim=config.d_local, stride=config.patch))
        self.patch_embeddings = nn.Embedding(rows, share)
        self.first_patch = nn.Parameter(torch.zeros(config.d_model))
        self.main_network = Stack(f"T{config.layers}", config.global_options())
        self.slices = Linear(share, config.d_local, bias=False)
        self.first_byte = nn.Parameter(torch.zeros(config.d_local))
        self.decoder = Stack(f"T{config.local_layers}", config.local_options())

    def pool(self, ids_BCP: Tensor, first_BC: Tensor) -> Tensor:
        """(B, C, D) from the bytes of patches; first: which of them are the BOS."""
        side_by_side = self.patch_embeddings(ids_BCP).flatten(2)
        return torch.where(first_BC[..., None], self.first_patch, side_by_side)

    def slice(self, z_BCD: Tensor) -> Tensor:
        """(B, C, P, d): what the places of patches get from the global output."""
        return self.slices(z_BCD.unflatten(-1, (self.patch, -1)))

    def decode(self, x_BCPd: Tensor, z_BCD: Tensor) -> Tensor:
        """(B, C, P, d) the local model, alone in each patch, from the byte before every place."""
        B, C, P, d = x_BCPd.shape
        before = torch.cat((self.first_byte.expand(B, C, 1, d), x_BCPd[:, :, 1:]), dim=2)
        inputs = (before + self.slice(z_BCD)).flatten(0, 1)
        return self.decoder(inputs, Segments(P)).unflatten(0, (B, C))


class MegaByte(BackboneModel[MegaByteState]):
    """Byte table of the local model, the body above, head."""

    Config = MegaByteConfig
    config: MegaByteConfig
    backbone: MegaByteBody

    def __init__(self, config: MegaByteConfig, vocab: Vocab):
        super().__init__(
            config,
            vocab,
            dim=config.d_local,
            make_body=lambda: MegaByteBody(config, vocab.size),
        )

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        body, P = self.backbone, self.config.patch
        positions = segments.positions(x_BLD.device).expand(x_BLD.shape[:2])
        plan = self._plan(x_BLD, positions, segments)
        patches = plan.members(P).gather(batch.ids)
        chunks = body.pool(patches, plan.select(positions) == 0)
        z = body.main_network(chunks, plan.segments())
        groups = plan.readers  # the bytes that read the same patch
        members = groups.members(P)
        read = take(z, groups.select(plan.reads).clamp(min=0))
        y = members.spread(body.decode(members.gather(x_BLD), read))
        return BodyOutput(x=y, stats=stage_stats(0, plan, segments.valid))

    def _plan(self, x_BLD: Tensor, positions: Tensor, segments: Segments) -> ChunkPlan:
        rule = self.backbone.rule
        stretch = Stretch(x=x_BLD, positions=positions, counts=segments.lengths)
        cuts, _ = rule.cut(stretch, rule.init_state(len(x_BLD), x_BLD))
        return ChunkPlan(
            cuts.starts,
            delay=1,
            document_ids=segments.document_ids,
            slots=_SLOTS,
            ends=cuts.ends,
            lengths=segments.lengths,
        )

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: MegaByteState, batch: Batch
    ) -> tuple[Tensor, MegaByteState]:
        """Rows are laid out from the place 0 of their newest patch on, so that patches are aligned;
        the local model computes that patch again, the global one only those that close now."""
        body, P, L = self.backbone, self.config.patch, x_BLD.shape[1]
        added = torch.full_like(state.position, L) if counts is None else counts
        done = (state.position - 1) % P + 1  # places of the newest patch that are filled
        K = -(-(int(done.max()) + L) // P)
        place = torch.arange(K * P, device=x_BLD.device)
        old, new = place < done[:, None], place - done[:, None] + P
        source = torch.where(old, place, new).clamp(max=P + L - 1)
        ids = take(torch.cat((state.ids, batch.ids), dim=1), source)
        x = take(torch.cat((state.x, x_BLD.to(state.x.dtype)), dim=1), source).unflatten(1, (K, P))

        closed = (done + added - 1) // P  # patches that close now
        z, inner = state.read[:, None], state.inner
        if int(closed.max()):
            index = torch.arange(1, int(closed.max()) * P + 1, device=ids.device)
            patches = ids[:, index].unflatten(1, (-1, P))
            ends = (state.position - done)[:, None] + index[P - 1 :: P]
            chunks = body.pool(patches, ends == 0)
            fed, inner = extend_rows(body.main_network.extend, chunks, closed, inner)
            z = torch.cat((z, fed.to(z.dtype)), dim=1)
        read = take(z, torch.arange(K, device=z.device).clamp(max=z.shape[1] - 1).expand(len(z), K))
        y = body.decode(x, read).flatten(1, 2)
        y = take(y, done[:, None] + torch.arange(L, device=y.device))

        row = torch.arange(len(z), device=z.device)
        newest = closed[:, None] * P + torch.arange(P, device=z.device)
        after = MegaByteState(
            position=state.position + added,
            ids=take(ids, newest),
            x=x[row, closed],
            read=z[row, closed],
            inner=inner,
        )
        return y, after

    def init_body(self, batch_size: int) -> MegaByteState:
        weight, P = self.lm_head.weight, self.config.patch
        return MegaByteState(
            position=weight.new_zeros(batch_size, dtype=torch.long),
            ids=weight.new_zeros(batch_size, P, dtype=torch.long),
            x=weight.new_zeros(batch_size, P, self.config.d_local),
            read=weight.new_zeros(batch_size, self.config.d_model),
            inner=self.backbone.main_network.init_state(batch_size),
        )

    def body_steps(self, state: MegaByteState, rows: int, *, compiled: bool) -> "MegaByteSteps":
        return MegaByteSteps(self.backbone, state, rows, compiled=compiled)

    @torch.no_grad()
    def reset_body(self) -> None:
        body = self.backbone
        height = body.main_network.height + body.decoder.height
        body.main_network.reset_linears(body.main_network.height)
        body.decoder.reset_linears(height)
        reset_linears(body.slices, 1)
        for embedding in (body.patch_embeddings.weight, body.first_patch, body.first_byte):
            nn.init.normal_(embedding, std=1.0)

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L): the positions of `ids` at which patches start."""
        positions = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        return [self._plan(self._embed(ids_BL), positions, Segments(len(positions))).starts]

    def body_flops(self, context_bytes: int) -> float:
        config, P = self.config, self.config.patch
        inner = stack_flops(f"T{config.layers}", config.global_options(), context_bytes / P)
        local = stack_flops(f"T{config.local_layers}", config.local_options(), P)
        return inner / P + local + 2 * config.d_model // P * config.d_local

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "backbone.patch_embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        return super().parameter_role(name, parameter)


class MegaByteSteps:
    """The body in place: the global stack runs for the rows whose patch closes now, and their local
    stack begins anew."""

    def __init__(self, body: MegaByteBody, state: MegaByteState, rows: int, *, compiled: bool):
        self._body, self._P = body, body.patch
        self._inner = StackSteps(body.main_network, state.inner, rows, compiled=compiled)
        empty = body.decoder.init_state(rows)
        self._decoder = StackSteps(body.decoder, empty, rows, compiled=compiled)
        self._slice = linear(body.slices)
        self._position: list[int] = state.position.tolist()
        self._ids: list[list[int]] = state.ids.tolist()
        self._x, self._read = state.x.clone(), state.read.clone()
        with torch.inference_mode():
            self._slices = self._sliced(self._read)
            done = [position % self._P for position in self._position]
            for place in range(max(done)):
                again = [b for b, count in enumerate(done) if count > place]
                self._local(self._x[again, place], again, [place] * len(again))
        self.chunks = 0

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """As `BodySteps.step`."""
        numbers = list(range(len(self._position)) if rows is None else rows)
        places = [self._position[b] % self._P for b in numbers]
        index = torch.tensor(numbers, device=x_nD.device)
        self._x[index, torch.tensor(places, device=x_nD.device)] = x_nD.to(self._x.dtype)
        closing = [i for i, place in enumerate(places) if place == 0]
        if closing:
            self.chunks += len(closing)
            self._close([numbers[i] for i in closing], [ids[i] for i in closing])
        for b, place, symbol in zip(numbers, places, ids, strict=True):
            self._ids[b][place] = symbol
            self._position[b] += 1
        return self._local(x_nD, numbers, places)

    def _close(self, rows: list[int], ids: list[int]) -> None:
        """Feed the patches that end with these bytes to the global model."""
        body, device = self._body, self._x.device
        patches = [[*self._ids[b][1:], symbol] for b, symbol in zip(rows, ids, strict=True)]
        first = [self._position[b] == 0 for b in rows]
        one_each = torch.tensor(patches, device=device)[:, None]
        chunks = body.pool(one_each, torch.tensor(first, device=device)[:, None])
        z = self._inner.step(chunks[:, 0], self._all_or(rows))
        index = torch.tensor(rows, device=device)
        self._read.index_copy_(0, index, z.to(self._read.dtype))
        self._slices.index_copy_(0, index, self._sliced(z))
        self._decoder.restart(rows)

    def _sliced(self, z_nD: Tensor) -> Tensor:
        """(n, P, d) as `MegaByteBody.slice`."""
        return self._slice(z_nD.reshape(len(z_nD) * self._P, -1)).unflatten(0, (-1, self._P))

    def _local(self, x_nd: Tensor, rows: list[int], places: list[int]) -> Tensor:
        """The local model at one place of each of these rows."""
        device = x_nd.device
        index, place = torch.tensor(rows, device=device), torch.tensor(places, device=device)
        before = torch.where((place == 0)[:, None], self._body.first_byte, x_nd)
        return self._decoder.step(before + self._slices[index, place], self._all_or(rows))

    def _all_or(self, rows: list[int]) -> list[int] | None:
        return None if len(rows) == len(self._position) else rows

    def state(self) -> MegaByteState:
        """The immutable state of all rows."""
        device = self._x.device
        return MegaByteState(
            position=torch.tensor(self._position, device=device),
            ids=torch.tensor(self._ids, device=device),
            x=self._x.clone(),
            read=self._read.clone(),
            inner=self._inner.state(),
        )
