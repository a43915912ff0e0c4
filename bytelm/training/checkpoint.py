"""Checkpoints: one folder a checkpoint, complete or not there at all.

    trainer/step-00000500/
        model.safetensors      weights
        optimizer.safetensors  optimizer state, "PARAMETER/STATE" -> tensor
        state.json             step, data position, alarms, ..., size and SHA-256 of the other files

safetensors and JSON only: resuming a foreign run directory runs none of its code. There is no
random-number state to keep, because every step seeds its generators from (seed, step).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bytelm.errors import CheckpointError
from bytelm.training.files import new_folder, remove_folder
from bytelm.training.optimizer import Optimizers

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass
class Position:
    """Where training is, apart from tensors."""

    dtype: str
    data: dict[str, Any] | None  # the data layer's own position; None = the start
    step: int = 0  # steps completed
    bytes_seen: int = 0
    seconds: float = 0.0  # wall time over all parts of the run
    evaluated: int = 0  # step of the last evaluation
    best: float | None = None  # lowest held-out bits per byte so far
    alarms: dict[str, dict[str, int]] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, *, model: nn.Module, optimizers: Optimizers, position: Position
) -> Path:
    """Write trainer/step-N; -> its path. Either the whole folder appears, or nothing."""
    path = folder / f"step-{position.step:08d}"
    if path.exists():
        remove_folder(path)
    with new_folder(path) as temporary:
        save_weights(model, temporary / WEIGHTS)
        _save(optimizers.state(), temporary / OPTIMIZER)
        manifest = {name: _fingerprint(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        state = {**asdict(position), "files": manifest}
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    return path


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The live state dict; a shared tensor once, under its first name."""
    first = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in first}


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the weights alone."""
    _save(weights_of(model), file)


def read_position(path: Path) -> Position:
    """Where training was at a checkpoint; `CheckpointError` if any of its files is damaged."""
    state = _read_state(path)
    for name, wanted in state.pop("files").items():
        _verify(path / name, wanted)
    return Position(**state)


def load_tensors(path: Path, *, model: nn.Module, optimizers: Optimizers) -> None:
    """Fill model and optimizers from a checkpoint folder."""
    _copy_into(weights_of(model), path / WEIGHTS)
    _copy_into(optimizers.state(), path / OPTIMIZER)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for path in sorted(folder.glob("step-*"))[:-keep]:
        remove_folder(path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a checkpoint: it has no {STATE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(_damaged(path / STATE, f"it is not JSON ({error})")) from None
    fields = {*Position.__dataclass_fields__, "files"}
    if not isinstance(state, dict) or set(state) != fields:
        raise CheckpointError(_damaged(path / STATE, f"it must have the fields {sorted(fields)}"))
    return state


def _verify(file: Path, wanted: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise CheckpointError(_damaged(file, "the file is missing"))
    if (size := file.stat().st_size) != wanted["bytes"]:
        raise CheckpointError(_damaged(file, f"it has {size} bytes instead of {wanted['bytes']}"))
    if _fingerprint(file) != wanted:
        raise CheckpointError(_damaged(file, "its SHA-256 is not the recorded one"))


def _damaged(file: Path, why: str) -> str:
    return (
        f"{file} is damaged: {why}. Delete the folder {file.parent} and resume again: training "
        "goes on from the checkpoint before it (or from the start)"
    )


def _fingerprint(file: Path) -> dict[str, Any]:
    with open(file, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


@torch.no_grad()
def _copy_into(targets: Mapping[str, Tensor], file: Path) -> None:
    try:
        stored = load_file(file)
    except SafetensorError as error:
        raise CheckpointError(_damaged(file, str(error))) from None
    if missing := sorted(set(targets) ^ set(stored)):
        raise CheckpointError(
            f"{file} does not fit the model: {len(missing)} tensors are in only one of them, "
            f"for example {missing[0]!r}"
        )
    for name, target in targets.items():
        if target.shape != stored[name].shape:
            raise CheckpointError(
                f"{file} does not fit the model: {name} is {tuple(stored[name].shape)} there and "
                f"{tuple(target.shape)} here"
            )
        target.copy_(stored[name])


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    file.chmod(0o644)  # safetensors makes files that only their owner can read
