"""The configurations and names of T5, ByT5 and MrT5 as transformers writes them, against ours.

Every tensor of ours is one of theirs, or several of theirs on top of each other: queries, keys and
values in `Wqkv`, the two halves of the gated feed-forward net in `fc1`. One table serves both ways.
Of a configuration only what shapes the model is read, and what this code cannot express is refused;
settings of training (dropout, initial factors) and of generation mean nothing here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.t5.config import MrT5Config, T5Config
from bytelm.errors import BytelmError, CheckpointError

_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight
_KEYS = {
    "d_model": "d_model",
    "num_heads": "heads",
    "d_kv": "head_dim",
    "d_ff": "hidden",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
}
_OPTIONAL = {
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "use_softmax1": "softmax1",
}
# what a key must say, and what transformers takes it to say where it is missing
_REQUIRED = {
    "feed_forward_proj": ("gated-gelu", "relu"),
    "tie_word_embeddings": (False, True),
    "vocab_size": (384, 32128),
    "layer_norm_epsilon": (1e-6, 1e-6),
}
_GATES = {"scaled_sigmoid": "learned", "random": "random", "fixed": "fixed"}
_GATE_KEYS = {"sigmoid_mask_scale": ("scale", -10.0), "gate_layer_norm": ("gate_norm", True)}
_RATES = {"random": "random_deletion_probability", "fixed": "fixed_deletion_amount"}


def t5_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `T5Config` that a configuration says; `BytelmError` for another kind of model."""
    for key, (wanted, default) in _REQUIRED.items():
        if (value := config.get(key, default)) != wanted:
            raise BytelmError(
                f"{key} is {value!r} in this configuration, and only {wanted!r} can be read: that "
                "of T5 1.1 over bytes (ByT5, MrT5)"
            )
    config = {"num_decoder_layers": config.get("num_layers"), **config}
    if missing := [key for key in _KEYS if not isinstance(config.get(key), int)]:
        raise BytelmError(f"this is no configuration of a ByT5: it has no {', '.join(missing)}")
    ours = {name: config[key] for key, name in _KEYS.items()}
    ours |= {name: config[key] for key, name in _OPTIONAL.items() if key in config}
    return ours


def mrt5_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `MrT5Config` that a configuration says, with the defaults of the release's own
    class where it says nothing: gate and layer come from the checkpoint, never from ours."""
    kind = config.get("deletion_type")
    if kind not in _GATES:
        raise BytelmError(
            f"deletion_type {kind!r} cannot be read; known: {', '.join(map(repr, _GATES))}"
        )
    ours = {**t5_settings(config), "deletion": _GATES[kind]}
    ours["gate_layer"] = config.get("delete_gate_layer", 2)
    if kind in _RATES:
        return ours | {"rate": config.get(_RATES[kind], 0.5)}
    for key, (name, default) in _GATE_KEYS.items():
        ours[name] = config.get(key, default)
    ours["noise"] = config.get("use_gumbel_noise", False)
    if (threshold := config.get("deletion_threshold")) is not None:
        ours["threshold"] = threshold / ours["scale"]
    return ours


def t5_config(config: T5Config) -> dict[str, Any]:
    """A configuration that transformers' `T5ForConditionalGeneration` is built from."""
    c = config
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": c.d_model,
        "num_heads": c.heads,
        "d_kv": c.attention.head_dim,
        "d_ff": c.feed_forward,
        "num_layers": c.encoder_layers,
        "num_decoder_layers": c.decoder_layers,
        "relative_attention_num_buckets": c.buckets,
        "relative_attention_max_distance": c.max_distance,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": False,
        "vocab_size": 384,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "tokenizer_class": "ByT5Tokenizer",
    }


def mrt5_config(config: MrT5Config) -> dict[str, Any]:
    """A configuration of the MrT5 release; `BytelmError` for a way of deletion it does not have."""
    names = {ours: theirs for theirs, ours in _GATES.items()}
    if config.deletion not in names:
        raise BytelmError(
            f"deletion = {config.deletion!r} has no released format; exportable: {', '.join(names)}"
        )
    kind = names[config.deletion]
    more: dict[str, Any] = {"deletion_type": kind, "delete_gate_layer": config.gate_layer}
    if kind in _RATES:
        more[_RATES[kind]] = config.rate
    more |= {
        "sigmoid_mask_scale": config.scale,
        "deletion_threshold": config.threshold * config.scale,
        "gate_layer_norm": config.gate_norm,
        "use_gumbel_noise": config.noise,
        "use_softmax1": config.softmax1,
    }
    base = t5_config(config)
    return {**base, "architectures": ["MrT5ForConditionalGeneration"], "model_type": "mrt5"} | more


def from_release(config: T5Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict by our names; `CheckpointError` if it has other names. A gate is not
    asked for where it has none: an MrT5 may begin as a ByT5."""
    gated = any("delete_gate" in name for name in state)
    table = {ours: names for ours, names in _names(config) if gated or ours not in GATE}
    wanted = {name for names in table.values() for name in names}
    missing = sorted(wanted - state.keys())
    extra = sorted(state.keys() - wanted - set(_COPIES))
    if missing or extra:
        raise CheckpointError(
            f"the state dict is not that of a ByT5 of this configuration: {len(missing)} names "
            f"missing {missing[:3]}, {len(extra)} unknown {extra[:3]}"
        )
    for name in _COPIES:
        if name in state and not torch.equal(state[name], state["shared.weight"]):
            raise CheckpointError(f"{name} is not shared.weight: a table for each half is unknown")
    return {ours: _stacked([state[name] for name in names]) for ours, names in table.items()}


def to_release(config: T5Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict by the release's names."""
    return {
        name: part.contiguous()
        for ours, names in _names(config)
        for name, part in zip(names, state[ours].chunk(len(names)), strict=True)
    }


def _stacked(parts: list[Tensor]) -> Tensor:
    if len({part.shape for part in parts}) > 1:
        raise CheckpointError(
            f"tensors that belong together have shapes {[tuple(part.shape) for part in parts]}"
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


GATE = ("shortener.norm.weight", "shortener.score.weight", "shortener.score.bias")


def _names(config: T5Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our name, theirs from top to bottom) of every tensor."""
    yield "embeddings.weight", ("shared.weight",)
    yield "lm_head.weight", ("lm_head.weight",)
    for half, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        first = f"{half}.block.0.layer.0.SelfAttention"
        yield f"{half}_bias.weight", (f"{first}.relative_attention_bias.weight",)
        yield f"{half}_norm.weight", (f"{half}.final_layer_norm.weight",)
        for i in range(layers):
            yield from _block_names(f"{half}.{i}", f"{half}.block.{i}", cross=half == "decoder")
    if isinstance(config, MrT5Config) and config.deletion == "learned":
        gate = f"encoder.block.{config.gate_layer}.delete_gate"
        theirs = ("layer_norm.weight", "feed_forward.weight", "feed_forward.bias")
        for ours, name in zip(GATE, theirs, strict=True):
            if config.gate_norm or ours != GATE[0]:
                yield ours, (f"{gate}.{name}",)


def _block_names(ours: str, theirs: str, *, cross: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    layers = ["SelfAttention", *["EncDecAttention"] * cross, "DenseReluDense"]
    for i, layer in enumerate(layers):
        yield f"{ours}.norm{i + 1}.weight", (f"{theirs}.layer.{i}.layer_norm.weight",)
        place = f"{theirs}.layer.{i}.{layer}"
        if layer == "SelfAttention":
            qkv = tuple(f"{place}.{x}.weight" for x in "qkv")
            yield f"{ours}.attention.Wqkv.weight", qkv
            yield f"{ours}.attention.out_proj.weight", (f"{place}.o.weight",)
        elif layer == "EncDecAttention":
            yield f"{ours}.cross.Wq.weight", (f"{place}.q.weight",)
            yield f"{ours}.cross.Wkv.weight", (f"{place}.k.weight", f"{place}.v.weight")
            yield f"{ours}.cross.out_proj.weight", (f"{place}.o.weight",)
        else:
            yield f"{ours}.mlp.fc1.weight", (f"{place}.wi_1.weight", f"{place}.wi_0.weight")
            yield f"{ours}.mlp.fc2.weight", (f"{place}.wo.weight",)
