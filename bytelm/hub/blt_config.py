"""Settings of transformers' `BltConfig` as ours, and back.

config.json leaves out what has its default there, so the defaults of transformers stand here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bytelm.arch.blt import BLTConfig
from bytelm.arch.transformer import Transformer
from bytelm.errors import BytelmError
from bytelm.nn.attention import SelfAttention

_EPS, _ROWS = 1e-5, 260
_THETA = 500_000.0
_TOP = {
    "vocab_size": _ROWS,
    "patch_in_forward": True,
    "patching_mode": "entropy",
    "patching_threshold": 1.335442066192627,
    "max_patch_length": None,
    "local_attention_window_len": 512,
    "cross_attn_k": 2,
    "encoder_hash_byte_group_size": None,
    "encoder_hash_byte_group_vocab": 500_002,
    "encoder_hash_byte_group_nb_functions": 1,
    "tie_word_embeddings": False,
}
_NETWORK: dict[str, Any] = {
    "vocab_size": _ROWS,
    "num_key_value_heads": None,
    "rms_norm_eps": _EPS,
    "dropout": 0.0,
    "hidden_act": "silu",
    "rope_parameters": None,
    "sliding_window": None,
    "cross_attn_k": 2,
    "hidden_size_global": 2048,
    "intermediate_size": None,
}
_PARTS: dict[str, dict[str, Any]] = {
    "encoder": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 1,
        "cross_attn_all_layers": False,
    },
    "decoder": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 9,
        "cross_attn_all_layers": True,
        "intermediate_size": 2816,
    },
    "global": {
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_hidden_layers": 25,
        "intermediate_size": 5632,
    },
    "patcher": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 14,
        "intermediate_size": 2048,
        "sliding_window": 512,
        "max_position_embeddings": 8192,
    },
}


@dataclass(frozen=True)
class Read:
    """model: settings of a `BLTConfig`; patcher: of the patcher's `TransformerConfig`, or None, and
    the positions that it may see; kv_heads: of each network that has fewer of them than heads."""

    model: dict[str, Any]
    patcher: dict[str, Any] | None
    patcher_context: int
    kv_heads: dict[str, int]


def read_config(config: Mapping[str, Any]) -> Read:
    """The configuration as ours; `BytelmError` for what no BLT of ours can do."""
    c = {**_TOP, **{name: config[name] for name in _TOP if name in config}}
    parts = {name: _part(name, config) for name in _PARTS}
    encoder, decoder, inner = parts["encoder"], parts["decoder"], parts["global"]
    networks = list(parts) if c["patch_in_forward"] else ["encoder", "decoder", "global"]
    for name in networks:
        _check_part(name, parts[name])
    k = c["cross_attn_k"]
    _same("vocab_size", c["vocab_size"], _ROWS, "the table has 260 rows")
    _same("tie_word_embeddings", bool(c["tie_word_embeddings"]), False, "tables are not tied")
    _same("encoder_config.cross_attn_k", encoder["cross_attn_k"], k, "that of the model")
    _same("decoder_config.cross_attn_k", decoder["cross_attn_k"], k, "that of the model")
    for name in ("hidden_size", "num_attention_heads"):
        _same(f"decoder_config.{name}", decoder[name], encoder[name], "that of the encoder")
    size = decoder["hidden_size_global"]
    _same("decoder_config.hidden_size_global", size, inner["hidden_size"], "the global width")
    bases = {_base(parts[name]) for name in ("encoder", "decoder", "global")}
    if len(bases) > 1:
        raise BytelmError(f"rope_theta differs between the networks: {sorted(bases)}")
    if encoder["cross_attn_all_layers"] and encoder["num_hidden_layers"] > 1:
        raise BytelmError(
            "encoder_config.cross_attn_all_layers: transformers computes a cross attention after "
            "every encoder layer and uses the last one's only, so the others have no effect: set "
            "it to false and keep the last one's weights as layer 0"
        )
    sizes = tuple(c["encoder_hash_byte_group_size"] or (3, 4, 5, 6, 7, 8))
    window = c["local_attention_window_len"]
    model = {
        "encoder_layers": encoder["num_hidden_layers"],
        "layers": inner["num_hidden_layers"],
        "decoder_layers": decoder["num_hidden_layers"],
        "d_local": encoder["hidden_size"],
        "d_model": inner["hidden_size"],
        "local_heads": encoder["num_attention_heads"],
        "heads": inner["num_attention_heads"],
        "encoder_hidden": _hidden(encoder),
        "hidden": _hidden(inner),
        "decoder_hidden": _hidden(decoder),
        "window": -1 if window is None else window - 1,
        "slots": k,
        "decoder_reads": "all" if decoder["cross_attn_all_layers"] else "first",
        "qk_norm": False,
        "rotary_base": bases.pop(),
        "ngrams": sizes,
        "ngram_rows": c["encoder_hash_byte_group_vocab"],
        "ngram_functions": c["encoder_hash_byte_group_nb_functions"],
        "boundaries": "entropy" if c["patch_in_forward"] else "given",
        "max_patch": c["max_patch_length"] or -1,
        "released_ids": True,
    }
    kv_heads = {name: heads for name in networks if (heads := parts[name]["num_key_value_heads"])}
    if not c["patch_in_forward"]:
        return Read(model, None, 0, kv_heads)
    _same("patching_mode", c["patching_mode"], "entropy", "the patcher's entropy")
    if c["patching_threshold"] is None:
        raise BytelmError("patching_threshold is null: without one, patching would not be causal")
    model["threshold"] = c["patching_threshold"]
    return Read(model, *_patcher(parts["patcher"]), kv_heads)


def _patcher(part: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    window = part["sliding_window"]
    settings = {
        "layers": part["num_hidden_layers"],
        "d_model": part["hidden_size"],
        "heads": part["num_attention_heads"],
        "hidden": _hidden(part),
        "window": -1 if window is None else window - 1,
        "qk_norm": False,
        "rotary_base": _base(part),
        "table": "blt",
    }
    return settings, max(part["max_position_embeddings"], window or 0)


def _part(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A network's settings, those left out at their defaults."""
    given = config.get(f"{name}_config") or {}
    known = {**_NETWORK, **_PARTS[name]}
    return {**known, **{key: value for key, value in given.items() if key in known}}


def _check_part(name: str, part: Mapping[str, Any]) -> None:
    place = f"{name}_config"
    _same(f"{place}.vocab_size", part["vocab_size"], _ROWS, "the table has 260 rows")
    _same(f"{place}.rms_norm_eps", part["rms_norm_eps"], _EPS, "that of our norms")
    _same(f"{place}.dropout", part["dropout"] or 0.0, 0.0, "there is no dropout")
    _same(f"{place}.hidden_act", part["hidden_act"], "silu", "SwiGLU")
    rope = part["rope_parameters"] or {}
    kind = rope.get("rope_type", "default")
    _same(f"{place}.rope_parameters.rope_type", kind, "default", "plain rotary positions")


def _same(name: str, given: Any, allowed: Any, why: str) -> None:
    if given != allowed:
        raise BytelmError(f"{name} = {given!r} cannot be read: it must be {allowed!r} ({why})")


def _base(part: Mapping[str, Any]) -> float:
    return float((part["rope_parameters"] or {}).get("rope_theta", _THETA))


def _hidden(part: Mapping[str, Any]) -> int:
    return part["intermediate_size"] or int(8 * part["hidden_size"] / 3)


def write_config(model: BLTConfig, patcher: Transformer | None) -> dict[str, Any]:
    """The arguments of `BltConfig`; `BytelmError` if it cannot express the model."""
    _exportable("released_ids", model.released_ids, True)
    _exportable("qk_norm", model.qk_norm, False)
    if not model.ngrams:
        raise BytelmError("the released format needs n-gram tables: ngrams is empty")
    if model.boundaries == "entropy":
        _exportable("entropy", model.entropy, "threshold")
    else:
        _exportable("boundaries", model.boundaries, "given")
    config: dict[str, Any] = {
        "vocab_size": _ROWS,
        "patch_in_forward": patcher is not None,
        "patching_mode": "entropy",
        "patching_threshold": model.threshold,
        "max_patch_length": None if model.max_patch < 0 else model.max_patch,
        "local_attention_window_len": _window(model.window),
        "cross_attn_k": model.slots,
        "encoder_hash_byte_group_size": list(model.ngrams),
        "encoder_hash_byte_group_vocab": model.ngram_rows,
        "encoder_hash_byte_group_nb_functions": model.ngram_functions,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "encoder_config": {
            **_network(model, "encoder"),
            "num_hidden_layers": model.encoder_layers,
            "cross_attn_all_layers": False,
        },
        "decoder_config": {
            **_network(model, "decoder"),
            "num_hidden_layers": model.decoder_layers,
            "cross_attn_all_layers": model.decoder_reads == "all",
        },
        "global_config": {**_network(model, "global"), "num_hidden_layers": model.layers},
    }
    if patcher is not None:
        config["patcher_config"] = _write_patcher(patcher)
    return config


def _network(model: BLTConfig, part: Any) -> dict[str, Any]:
    options = model.stack_options(part)
    shared = {
        "vocab_size": _ROWS,
        "cross_attn_k": model.slots,
        "hidden_size_global": model.d_model,
    }
    return {
        **({} if part == "global" else shared),
        "hidden_size": options.dim,
        "num_attention_heads": options.attention.heads,
        "intermediate_size": options.hidden,
        "rms_norm_eps": options.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
    }


def _write_patcher(patcher: Transformer) -> dict[str, Any]:
    config = patcher.config
    options = config.stack_options()
    windows = {  # which the entropy rule may have narrowed
        part.options.window for part in patcher.modules() if isinstance(part, SelfAttention)
    }
    _exportable("the patcher's table", config.table, "blt")
    _exportable("the patcher's qk_norm", config.qk_norm, False)
    _exportable("the patcher's conv", config.conv, 0)
    width = config.d_model // config.heads
    _exportable("the patcher's rotary_dim", config.rotary_dim or width, width)
    return {
        "vocab_size": _ROWS,
        "hidden_size": config.d_model,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "intermediate_size": options.hidden,
        "rms_norm_eps": options.eps,
        "sliding_window": _window(windows.pop()),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
    }


def _window(window: int) -> int | None:
    return None if window < 0 else window + 1


def _exportable(name: str, value: Any, needed: Any) -> None:
    if value != needed:
        raise BytelmError(
            f"{name} = {value!r} cannot be expressed by transformers' BLT: it needs {needed!r}"
        )
