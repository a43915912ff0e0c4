"""The BLT of transformers: configuration and state-dict names of `BltForCausalLM`.

Weights are the same numbers in another order. transformers keeps queries, keys and values apart and
rotates neighbouring channels; here they are one matrix, and the two halves of a head are rotated.
Its patcher becomes a `transformer` with the released byte table.

What cannot be taken over is refused by name: other ids, ties of input and output table, dropout,
scaled rotary positions, norms of another eps, local models that differ in their heads, and a cross
attention in every encoder layer, of which transformers itself uses the last one only.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import STORED, TrainedPart
from bytelm.arch.blt import BLT, BLTConfig
from bytelm.arch.blt.entropy import EntropyRule
from bytelm.arch.transformer import Transformer, TransformerConfig
from bytelm.damage import malformed, read_object
from bytelm.errors import BytelmError, CheckpointError
from bytelm.hub.blt_config import read_config, write_config
from bytelm.model_bounds import bounded_by
from bytelm.vocab import ByteVocab

MODEL = BLT
_WHAT = "a configuration of transformers' BLT"
Get = Callable[[str], Tensor]  # a tensor by its name in transformers


def from_official(
    config: Mapping[str, Any] | str | Path, state_dict: Mapping[str, Tensor] | None
) -> BLT:
    """The model of a configuration (`BltConfig.to_dict()`, or its config.json), with the given
    weights or initialised."""
    place = config if isinstance(config, str | Path) else "this configuration"
    shapes = None if state_dict is None else [tuple(t.shape) for t in state_dict.values()]
    bounds = nullcontext() if shapes is None else bounded_by(shapes, place)
    if isinstance(config, str | Path):
        config = read_object(Path(config), _WHAT)
    with malformed(place, _WHAT), bounds:
        read = read_config(config)
        ours = BLTConfig.model_validate(read.model, context=STORED)
        part = None
        if read.patcher is not None:
            small = TransformerConfig.model_validate(read.patcher, context=STORED)
            part = TrainedPart(
                arch="transformer",
                model=Transformer(small, ByteVocab()),
                context_bytes=read.patcher_context,
            )
        model = BLT(ours, ByteVocab(), patcher=part)
    if state_dict is not None:
        _load(model, state_dict, read.kv_heads)
    return model


def to_official(model: BLT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of `BltConfig` and the state dict of `BltForCausalLM`.

    `BytelmError` for what it cannot express: another table, normalised queries, another rule.
    """
    patcher = _patcher(model)
    config = write_config(model.config, patcher)
    theirs: dict[str, Tensor] = {}
    ours = model.state_dict()
    for name, parts in _pairs(model, kv_heads={}):
        for part, tensor in zip(parts.theirs, parts.split(ours[name]), strict=True):
            theirs[part] = tensor.contiguous()
    if model.config.slots == 1:
        for i, _ in enumerate(model.backbone.reads):  # which choose among one: any would do
            name, D = f"model.local_decoder.cross_attn_layers.{i}", model.config.d_local
            theirs[f"{name}.q_norm.weight"] = model.lm_head.weight.new_ones(D)
            for kind in "qk":
                theirs[f"{name}.{kind}_proj.weight"] = model.lm_head.weight.new_zeros(D, D)
    return config, {name: tensor.detach() for name, tensor in theirs.items()}


def _patcher(model: BLT) -> Transformer | None:
    if not isinstance(model.rule, EntropyRule):
        return None
    patcher = model.rule.patcher
    if not isinstance(patcher, Transformer):
        raise BytelmError(
            f"the patcher is a {type(patcher).__name__}: transformers knows Transformers only"
        )
    return patcher


class Pieces:
    """One tensor of ours as tensors of transformers: their names, and both ways between them."""

    def __init__(self, *theirs: str):
        self.theirs = theirs

    def join(self, get: Get) -> Tensor:
        """Ours of theirs."""
        return torch.cat([get(name) for name in self.theirs])

    def split(self, ours: Tensor) -> list[Tensor]:
        """Theirs of ours."""
        return list(ours.chunk(len(self.theirs)))


class Heads(Pieces):
    """Projections by head: rotated ones have their channels in another order, and keys and values
    may have fewer heads there, each of which is repeated here."""

    def __init__(self, *theirs: str, heads: int, kv_heads: int, rotated: bool):
        super().__init__(*theirs)
        self.heads, self.kv_heads, self.rotated = heads, kv_heads, rotated

    def join(self, get: Get) -> Tensor:
        return torch.cat([self._ours(name, get(name)) for name in self.theirs])

    def split(self, ours: Tensor) -> list[Tensor]:
        parts = zip(self.theirs, ours.chunk(len(self.theirs)), strict=True)
        return [self._turned(name, part, self.heads, back=True) for name, part in parts]

    def _ours(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith("q_proj.weight"):
            return self._turned(name, tensor, self.heads, back=False)
        turned = self._turned(name, tensor, self.kv_heads, back=False)
        by_head = turned.unflatten(0, (self.kv_heads, -1))
        return by_head.repeat_interleave(self.heads // self.kv_heads, 0).flatten(0, 1)

    def _turned(self, name: str, tensor: Tensor, heads: int, *, back: bool) -> Tensor:
        """Channels 0, 2, 4, ... of each head, then 1, 3, 5, ...; or back."""
        if not self.rotated or name.endswith("v_proj.weight"):
            return tensor
        K = tensor.shape[0] // heads
        order = torch.cat((torch.arange(0, K, 2), torch.arange(1, K, 2)))
        order = order.argsort() if back else order
        return tensor.unflatten(0, (heads, K))[:, order].flatten(0, 1)


def _pairs(model: BLT, kv_heads: Mapping[str, int]) -> Iterator[tuple[str, Pieces]]:
    """(name of ours, theirs) of every tensor. kv_heads: of each of the networks that has fewer of
    them than heads."""
    c, encoder, decoder = model.config, "model.local_encoder", "model.local_decoder"
    local = {"heads": c.local_heads, "kv_heads": kv_heads.get("encoder", c.local_heads)}
    late = {"heads": c.local_heads, "kv_heads": kv_heads.get("decoder", c.local_heads)}
    inner = {"heads": c.heads, "kv_heads": kv_heads.get("global", c.heads)}
    yield "embeddings.weight", Pieces(f"{encoder}.embed_tokens.weight")
    yield "lm_head.weight", Pieces("lm_head.weight")
    if model.ngrams is not None:
        yield "ngrams.table.weight", Pieces("model.encoder_hash_tok_embedding.weight")
    yield "backbone.norm.weight", Pieces(f"{decoder}.norm.weight")
    yield "backbone.slots.weight", Pieces(f"{encoder}.patch_embedding_projection.weight")
    yield "backbone.narrow.weight", Pieces(f"{decoder}.patch_embedding_projection.weight")
    if c.slots * c.d_local != c.d_model:
        name = "model.global_transformer.token_embedding_projection.weight"
        yield "backbone.widen.weight", Pieces(name)
    for i in range(c.encoder_layers):
        yield from _block(f"backbone.encoder.layers.{i}", f"{encoder}.layers.{i}", **local)
    for i in range(c.layers):
        theirs = f"model.global_transformer.layers.{i}"
        yield from _block(f"backbone.main_network.layers.{i}", theirs, **inner)
    for i in range(c.decoder_layers):
        yield from _block(f"backbone.decoder.{i}.layers.0", f"{decoder}.layers.{i}", **late)
    yield from _cross(
        "backbone.gather",
        f"{encoder}.cross_attn_layers.0",
        heads=local["heads"],
        kv_heads=local["kv_heads"],
    )
    for i, _ in enumerate(model.backbone.reads):
        theirs = f"{decoder}.cross_attn_layers.{i}"
        yield from _cross(
            f"backbone.reads.{i}",
            theirs,
            heads=late["heads"],
            kv_heads=late["kv_heads"],
            chooses=c.slots > 1,
        )
    patcher = _patcher(model)
    if patcher is not None:
        H = patcher.config.heads
        small = {"heads": H, "kv_heads": kv_heads.get("patcher", H)}
        ours, theirs = "rule.patcher", "model.patcher"
        yield f"{ours}.embeddings.weight", Pieces(f"{theirs}.embed_tokens.weight")
        yield f"{ours}.lm_head.weight", Pieces(f"{theirs}.lm_head.weight")
        yield f"{ours}.backbone.rmsnorm.weight", Pieces(f"{theirs}.norm.weight")
        for i in range(patcher.config.layers):
            yield from _block(f"{ours}.backbone.layers.{i}", f"{theirs}.layers.{i}", **small)


def _block(ours: str, theirs: str, *, heads: int, kv_heads: int) -> Iterator[tuple[str, Pieces]]:
    """A layer of attention and SwiGLU."""
    names = [f"{theirs}.self_attn.{kind}_proj.weight" for kind in "qkv"]
    yield (
        f"{ours}.mixer.Wqkv.weight",
        Heads(*names, heads=heads, kv_heads=kv_heads, rotated=True),
    )
    yield f"{ours}.mixer.out_proj.weight", Pieces(f"{theirs}.self_attn.o_proj.weight")
    up, gate = (f"{theirs}.mlp.{kind}_proj.weight" for kind in ("up", "gate"))
    yield f"{ours}.mlp.fc1.weight", Pieces(up, gate)
    yield f"{ours}.mlp.fc2.weight", Pieces(f"{theirs}.mlp.down_proj.weight")
    yield f"{ours}.norm1.weight", Pieces(f"{theirs}.input_layernorm.weight")
    yield f"{ours}.norm2.weight", Pieces(f"{theirs}.post_attention_layernorm.weight")


def _cross(
    ours: str, theirs: str, *, heads: int, kv_heads: int, chooses: bool = True
) -> Iterator[tuple[str, Pieces]]:
    """An attention between bytes and patches."""
    kinds = "kv" if chooses else "v"
    names = [f"{theirs}.{kind}_proj.weight" for kind in kinds]
    heads_of = {"heads": heads, "kv_heads": kv_heads}
    yield f"{ours}.Wkv.weight", Heads(*names, **heads_of, rotated=False)
    yield f"{ours}.out_proj.weight", Pieces(f"{theirs}.o_proj.weight")
    yield f"{ours}.k_norm.weight", Pieces(f"{theirs}.k_norm.weight")
    if chooses:
        yield f"{ours}.Wq.weight", Pieces(f"{theirs}.q_proj.weight")
        yield f"{ours}.q_norm.weight", Pieces(f"{theirs}.q_norm.weight")


def _load(model: BLT, state_dict: Mapping[str, Tensor], kv_heads: Mapping[str, int]) -> None:
    used: set[str] = set()

    def get(name: str) -> Tensor:
        if name not in state_dict:
            raise CheckpointError(f"the state dict does not fit the configuration: no {name}")
        used.add(name)
        return state_dict[name]

    ours = model.state_dict()
    made = {name: pieces.join(get) for name, pieces in _pairs(model, kv_heads)}
    assert made.keys() == ours.keys(), made.keys() ^ ours.keys()
    for name, tensor in made.items():
        if tensor.shape != ours[name].shape:
            raise CheckpointError(
                f"{name} has shape {tuple(tensor.shape)}; the configuration needs "
                f"{tuple(ours[name].shape)}"
            )
    extra = sorted(name for name in state_dict.keys() - used if not _idle(name, model))
    if extra:
        raise CheckpointError(
            f"the state dict does not fit the configuration: {len(extra)} unknown {extra[:3]}"
        )
    model.load_state_dict(made, assign=next(iter(ours.values())).is_meta)


def _idle(name: str, model: BLT) -> bool:
    """Whether a tensor has no effect: the queries of bytes that look at a single slot, and keys."""
    kinds = (".q_norm.weight", ".q_proj.weight", ".k_proj.weight")
    return (
        model.config.slots == 1
        and name.startswith("model.local_decoder.cross_attn_layers.")
        and name.endswith(kinds)
    )
