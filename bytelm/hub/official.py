"""Import and export in the formats of the papers' own releases, a module or class per format.

A format is a pair of functions, (config, state dict) -> model and back, and the model's class.
Weights are never unpickled here with code execution: `bytelm.weights` reads safetensors, or a
pickle restricted to tensors and plain containers.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from bytelm.arch.base import ByteModel
from bytelm.errors import BytelmError, unknown_name
from bytelm.weights import load_weights

_FORMATS = {
    "hnet": "bytelm.hub.hnet",
    "blt": "bytelm.hub.blt",
    "mrt5": "bytelm.hub.t5:MrT5Format",  # before byt5, which its models are too
    "byt5": "bytelm.hub.t5:ByT5Format",
}


def from_official(
    kind: str,
    config: Mapping[str, Any] | str | Path,
    state_dict: Mapping[str, Tensor] | str | Path | None = None,
) -> ByteModel:
    """A model from a release's configuration (a mapping or a JSON file) and weights.

    kind        "hnet" (goombalab/hnet), "blt" (`BltForCausalLM` of transformers), "byt5"
                (`T5ForConditionalGeneration`) or "mrt5" (jkallini/mrt5)
    state_dict  tensors by the release's names, or a .safetensors / .pt file, or a folder that holds
                one or its shards (`bytelm.weights`); None = initialised.
                Build under `torch.device("meta")` to get shapes only.

    Raises `BytelmError` for an unknown kind or configuration, `CheckpointError` if names or shapes
    do not fit.
    """
    format_ = _format(kind)
    if isinstance(state_dict, str | Path):
        state_dict = load_weights(state_dict)
    return format_.from_official(config, state_dict)


def to_official(model: ByteModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(configuration, state dict) of a model in its release's names; `BytelmError` if the release
    cannot express the model."""
    for kind in _FORMATS:
        format_ = _format(kind)
        if isinstance(model, format_.MODEL):
            return format_.to_official(model)
    raise BytelmError(
        f"{type(model).__name__} has no official format; exportable: {', '.join(_FORMATS)}"
    )


def _format(kind: str) -> Any:
    if kind not in _FORMATS:
        raise BytelmError(unknown_name("official format", kind, _FORMATS))
    module, _, name = _FORMATS[kind].partition(":")
    return getattr(import_module(module), name) if name else import_module(module)
