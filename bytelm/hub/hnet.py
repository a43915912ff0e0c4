"""The released H-Net format: configuration JSON and state-dict names of goombalab/hnet.

Module names agree, so the state dict needs no renaming. Vocabularies do not: the release's tables
have 256 rows, of which 254 and 255 are BOS and EOS, so an imported model keeps those tables behind
the id map "hnet" (`released_ids`), and refuses the two bytes that never occur in UTF-8.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from bytelm.arch.base import STORED
from bytelm.arch.hnet import HNet
from bytelm.arch.hnet.config import HNetConfig
from bytelm.damage import malformed, read_object
from bytelm.errors import BytelmError, CheckpointError, unknown_name
from bytelm.model_bounds import bounded_by
from bytelm.vocab import ByteVocab

MODEL = HNet
_WHAT = "a configuration of the H-Net release"
_SIZES = ("arch_layout", "d_model", "d_intermediate", "vocab_size", "tie_embeddings")
_TOP = (*_SIZES, "ssm_cfg", "attn_cfg")
_SSM = ("chunk_size", "d_conv", "d_state", "expand")
_ATTENTION = ("num_heads", "rotary_emb_dim", "window_size")


def from_official(
    config: Mapping[str, Any] | str | Path, state_dict: Mapping[str, Tensor] | None
) -> HNet:
    """The model of a released configuration, with the given weights or initialised."""
    place = config if isinstance(config, str | Path) else "this configuration"
    shapes = None if state_dict is None else [tuple(t.shape) for t in state_dict.values()]
    bounds = nullcontext() if shapes is None else bounded_by(shapes, place)
    if isinstance(config, str | Path):
        config = read_object(Path(config), _WHAT)
    with malformed(place, _WHAT), bounds:
        model = HNet(read_config(config), ByteVocab())
    if state_dict is not None:
        _load(model, state_dict)
    return model


def read_config(config: Mapping[str, Any]) -> HNetConfig:
    """The release's configuration as ours; its chunking targets are (6) or (3, 3) as published.

    `chunk_size` is a kernel hint of the release and is not taken over.
    """
    attention, ssm = config.get("attn_cfg", {}), config.get("ssm_cfg", {})
    for part, allowed in ((config, _TOP), (attention, _ATTENTION), (ssm, _SSM)):
        for key in part:
            if key not in allowed:
                raise BytelmError(unknown_name("H-Net setting", key, allowed))
    if config.get("vocab_size", 256) != 256 or config.get("tie_embeddings", False):
        raise BytelmError("only the released vocabulary of 256 with untied tables can be read")
    stages = len(config["d_model"]) - 1
    ours = {
        "layout": config["arch_layout"],
        "d_model": tuple(config["d_model"]),
        "d_intermediate": tuple(config["d_intermediate"]),
        "num_heads": tuple(attention["num_heads"]),
        "rotary_dim": tuple(attention["rotary_emb_dim"]),
        "window": tuple(attention["window_size"]),
        "d_state": ssm.get("d_state", 128),
        "d_conv": ssm.get("d_conv", 4),
        "expand": ssm.get("expand", 2),
        "target": {0: (), 1: (6.0,)}.get(stages, (3.0,) * stages),
        "released_ids": True,
    }
    # the release fills in every list, also for layers that a stage does not have
    return HNetConfig.model_validate(ours, context=STORED)


def to_official(model: HNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the state dict in the release's form."""
    c = model.config
    if not c.released_ids:
        raise BytelmError(
            f"this model has {model.vocab.size} ids, the released format 256: only models with "
            "released_ids = true can be exported to it"
        )
    if any(rule != "learned" for rule in c.boundary_rules) or c.head_dim != 64:
        raise BytelmError("the released format knows learned boundaries and head_dim 64 only")
    attention = [c.stack_options(s).attention for s in range(c.stages + 1)]
    config = {
        "arch_layout": c.layout,
        "d_model": list(c.d_model),
        "d_intermediate": list(c.d_intermediate),
        "vocab_size": 256,
        "ssm_cfg": {
            "chunk_size": 256,
            "d_conv": c.d_conv,
            "d_state": c.d_state,
            "expand": c.expand,
        },
        "attn_cfg": {
            "num_heads": [a.heads for a in attention],
            "rotary_emb_dim": [a.rotary_dim for a in attention],
            "window_size": [a.window for a in attention],
        },
        "tie_embeddings": False,
    }
    return config, dict(model.state_dict())


def _load(model: HNet, state_dict: Mapping[str, Tensor]) -> None:
    ours = model.state_dict()
    missing, extra = sorted(ours.keys() - state_dict), sorted(state_dict.keys() - ours)
    if missing or extra:
        raise CheckpointError(
            f"the state dict does not fit the configuration: {len(missing)} names missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}"
        )
    for name, tensor in state_dict.items():
        if tensor.shape != ours[name].shape:
            raise CheckpointError(
                f"{name} has shape {tuple(tensor.shape)}; the configuration needs "
                f"{tuple(ours[name].shape)}"
            )
    model.load_state_dict(dict(state_dict), assign=next(iter(ours.values())).is_meta)
