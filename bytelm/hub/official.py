"""Import and export in the formats of the papers' own releases, a module or class per format.

A format is a pair of functions, (config, state dict) -> model and back, and the model's class.
Weights are never unpickled here with code execution: `load_weights` reads safetensors, or a pickle
restricted to tensors and plain containers.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel
from bytelm.damage import malformed, one_line
from bytelm.errors import BytelmError, CheckpointError, unknown_name

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
    state_dict  tensors by the release's names, or a .safetensors / .pt file; None = initialised.
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


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickle that holds tensors and nothing else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weight file at {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with malformed(path, "a safetensors file"):
            return load_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle errors are of every type
        raise CheckpointError(
            f"{path} is not a plain pickle of tensors, and bytelm executes no code from weight "
            "files. Re-save its state dict as .safetensors where you trust the file. "
            f"({type(error).__name__}: {one_line(str(error))})"
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path} does not hold a state dict of tensors")
    return loaded


def _format(kind: str) -> Any:
    if kind not in _FORMATS:
        raise BytelmError(unknown_name("official format", kind, _FORMATS))
    module, _, name = _FORMATS[kind].partition(":")
    return getattr(import_module(module), name) if name else import_module(module)
