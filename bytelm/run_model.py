"""The model of a run directory: built from its description, with its weights.

A model may hold another one, which was trained before it (BLT its patcher). The recipe names the
run that one comes from (`ArchConfig.trained_parts`); a run directory needs no other: config.json
describes the part, and its weights are among the model's own.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bytelm.arch.base import STORED, ArchConfig, ByteModel, TrainedPart
from bytelm.damage import malformed
from bytelm.errors import BytelmError, CheckpointError, RecipeError
from bytelm.model_bounds import bounded_by
from bytelm.nn.quantized import replace_layers
from bytelm.registry import architecture
from bytelm.run import Description, Run
from bytelm.vocab import vocab_from_dict


def load_model(path: str | Path) -> ByteModel:
    """The `ByteModel` of a run directory with its weights, on the CPU, in evaluation mode.

    Raises `CheckpointError` if config.json or the weights are missing or do not fit each other.
    """
    run = Run(Path(path))
    stored = run.description()
    weights = run.read_weights()
    shapes = [tuple(tensor.shape) for tensor in weights.values()]
    with malformed(run.path / "config.json", "the description of a model"):
        kind = architecture(stored.arch)
        config = kind.Config.model_validate(stored.config, context=STORED)  # type: ignore[attr-defined]
        with torch.device("meta"), bounded_by(shapes, run.path):
            model = kind(config, stored.vocab, **_arguments(kind, config, stored))
            if stored.quantization:
                _quantize(model, stored, run.path)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise CheckpointError(
            f"the weights in {run.path} do not fit its config.json: {len(wrong)} tensors are "
            f"missing, surplus or of another shape, e.g. {', '.join(wrong[:3])}"
        )
    model.load_state_dict(weights, assign=True)
    assert not any(buffer.is_meta for buffer in model.buffers()), f"{kind} has an unsaved buffer"
    return model.eval()


def _quantize(model: ByteModel, stored: Description, path: Path) -> None:
    """Make the layers that config.json names quantized ones; `CheckpointError` if it cannot be."""
    assert stored.quantization is not None, "only what is quantized comes here"
    try:
        replace_layers(model, list(stored.quantization["layers"]), stored.quantization["scheme"])
    except (BytelmError, KeyError) as error:
        raise CheckpointError(f"{path} does not describe a quantized model: {error}") from None


def _arguments(kind: type, config: ArchConfig, stored: Description) -> dict[str, Any]:
    """What the constructor takes besides config and vocabulary, as it was stored."""
    names = inspect.signature(kind).parameters
    found = {name: value for name, value in stored.arguments.items() if name in names}
    for name in config.trained_parts():
        if name in found:
            found[name] = described_part(found[name])
    return found


def trained_parts(config: ArchConfig) -> dict[str, TrainedPart]:
    """The trained models that a recipe's model takes: keyword argument -> part.

    `RecipeError` where one is not named, or is no run directory.
    """
    return {name: _trained_part(name, path) for name, path in config.trained_parts().items()}


def _trained_part(name: str, path: str) -> TrainedPart:
    if not path:
        raise RecipeError(
            f"model.{name} is required and missing: the run directory of a trained model, such as "
            f"runs/blt-{name}-tiny"
        )
    if not Run(Path(path)).has_model:
        raise RecipeError(
            f"model.{name} = {path!r} is not a run directory: train that model first, or name "
            "another run"
        )
    stored, model = Run(Path(path)).description(), load_model(path)
    if stored.quantization:
        raise RecipeError(
            f"model.{name} = {path!r} holds quantized weights: name the run they were exported from"
        )
    if model.config.trained_parts():
        raise RecipeError(
            f"model.{name} = {path!r} holds a trained part itself: name a model without one"
        )
    return TrainedPart(arch=stored.arch, model=model, context_bytes=stored.context_bytes)


def described_part(stored: Mapping[str, Any]) -> TrainedPart:
    """A part as `TrainedPart.to_dict` described it, with initial weights (none on meta)."""
    kind = architecture(stored["arch"])
    config = kind.Config.model_validate(stored["config"], context=STORED)  # type: ignore[attr-defined]
    model = kind(config, vocab_from_dict(stored["vocabulary"]))
    return TrainedPart(arch=stored["arch"], model=model, context_bytes=stored["context_bytes"])
