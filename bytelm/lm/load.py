"""`bytelm.load`: whatever a path holds, as a `ByteLM`.

A run directory (what `bytelm train` leaves) becomes a `NativeLM`, or a `SubwordLM` if it was
trained on the ids of a tokenizer, of which it holds a copy; a Hugging Face model directory or a
GGUF file becomes a converted token model. Loading never runs code from the path: weights are
safetensors, the architecture is found by name in the registry.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from bytelm.arch.base import ByteModel
from bytelm.errors import BytelmError, CheckpointError
from bytelm.lm.native import NativeLM
from bytelm.lm.protocol import ByteLM
from bytelm.registry import architecture
from bytelm.vocab import TokenVocab, vocab_from_dict

if TYPE_CHECKING:
    from bytelm.lm.subword import SubwordLM

_FIM = ("fim_prefix", "fim_suffix", "fim_middle")


def load(
    path: str | Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: str | torch.device = "cpu",
) -> ByteLM:
    """The model at `path`: a run directory, a Hugging Face model directory, or a .gguf file.

    window, stride   how a run's model reads long texts (`NativeLM`); default: the context it was
                     trained with, and half of that
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"there is no model at {path}: give a run directory (bytelm train prints its path), a "
            "Hugging Face model directory or a .gguf file"
        )
    if path.is_dir() and is_run(path):
        return load_run(path, window=window, stride=stride, device=device)
    if path.suffix == ".gguf" or (path / "config.json").is_file():
        if window is not None or stride is not None:
            raise BytelmError("window and stride are settings of native models, not of converted")
        from bytelm.exact import load_token_model

        return load_token_model(path, device=device)
    raise CheckpointError(
        f"{path} is not a model: a run directory or a Hugging Face model directory has a "
        "config.json, and other model files end in .gguf"
    )


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory (or a run's `best` directory)."""
    return (path / "config.json").is_file() and "arch" in _description(path)


def load_run(
    path: Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: str | torch.device = "cpu",
) -> NativeLM | SubwordLM:
    """The trained model of a run directory, ready to predict bytes."""
    description = _description(path)
    model = load_model(path).to(device)
    if window is None:
        window = max(1, int(description["context_bytes"]) - 1)  # BOS takes a place
    if isinstance(model.vocab, TokenVocab):
        return _subword(path, model, window=window, stride=stride)
    specials = model.vocab.specials
    if description.get("objective") != "fim":  # it never saw the infilling symbols
        specials = {name: i for name, i in specials.items() if name not in _FIM}
    return NativeLM(model, window=window, stride=stride, specials=specials)


def _subword(path: Path, model: ByteModel, *, window: int, stride: int | None) -> SubwordLM:
    """A model over tokens with the tokenizer in its run directory."""
    from bytelm.lm.subword import SubwordLM
    from bytelm.tokenizer import BinaryBPE

    try:
        bpe = BinaryBPE.load(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} was trained on the ids of a tokenizer and its tokenizer.json is missing: copy "
            "the one it was trained with there"
        ) from None
    return SubwordLM(model, bpe, window=window, stride=stride)


def load_model(path: Path) -> ByteModel:
    """The `ByteModel` of a run directory with its weights, on the CPU, in evaluation mode."""
    description = _description(path)
    kind = architecture(str(description["arch"]))
    try:
        vocab = vocab_from_dict(description["vocabulary"])
        config = kind.Config.model_validate(description["config"])  # type: ignore[attr-defined]
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{path / 'config.json'} does not describe a model: {error}"
        ) from None
    with torch.device("meta"):
        model = kind(config, vocab)
    weights = _weights(path / "model.safetensors")
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        wrong = sorted(
            name
            for name in expected.keys() | weights.keys()
            if name not in weights or expected.get(name) != weights[name].shape
        )
        raise CheckpointError(
            f"the weights in {path} do not fit its config.json: {len(wrong)} tensors are missing, "
            f"surplus or of another shape, e.g. {', '.join(wrong[:3])}"
        )
    model.load_state_dict(weights, assign=True)
    assert not any(buffer.is_meta for buffer in model.buffers()), f"{kind} has an unsaved buffer"
    return model.eval()


def _description(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path / 'config.json'} is not JSON: {error}") from None


def _weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the run has not written a checkpoint yet, or it was not copied"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}): restore it from the newest "
            "folder in trainer/, or train again with --resume"
        ) from None
