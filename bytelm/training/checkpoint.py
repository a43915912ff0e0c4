"""Checkpoints: one folder per checkpoint, complete or not there at all.

    trainer/step-00000500/
        model.safetensors      weights, whole: every other command needs them
        optimizer.safetensors  optimizer state, "PARAMETER/STATE" -> tensor
        optimizer/             the same from an FSDP run, as torch.distributed.checkpoint shards
        state.json             step, data position, alarms, ..., size and SHA-256 of the other files

Either kind is read back into any number of ranks. But for shards (whose index is a pickle: resume
only your own) there is safetensors and JSON only. There is no random-number state to keep, because
every step seeds its generators from (seed, step).
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import Tensor, nn

from bytelm.damage import malformed, parse_json
from bytelm.errors import CheckpointError
from bytelm.files import new_folder, remove_folder
from bytelm.run import WEIGHTS, load_tensors, save_tensors
from bytelm.training.distributed import Ranks, is_sharded, shard_like, whole
from bytelm.training.optimizer import Optimizers

OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
SHARDS = "optimizer"


@dataclass
class Position:
    """Where training is, apart from tensors."""

    dtype: str
    data: dict[str, Any] | None  # the data layer's own position; None = the start
    compile: bool = False  # whether the model is compiled
    step: int = 0  # steps completed
    bytes_seen: int = 0
    seconds: float = 0.0  # on the recipe's clock, over all parts of the run
    cpu_seconds: float = 0.0  # CPU time of this process (rank 0), over all parts of the run
    evaluated: int = 0  # step of the last evaluation
    best: float | None = None  # best held-out headline figure so far
    heldout: str | None = None  # fingerprint of the held-out windows, None without any
    alarms: dict[str, dict[str, int]] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, *, model: nn.Module, optimizers: Optimizers, position: Position, ranks: Ranks
) -> Path:
    """Write trainer/step-N; -> its path. Either the whole folder appears, or nothing.

    All ranks call it together; rank 0 writes everything but the optimizer shards of other ranks.
    """
    path = folder / f"step-{position.step:08d}"
    weights = gather_weights(model, ranks)
    state = optimizers.state()
    with new_folder(path, ranks) as temporary:
        if is_sharded(model):
            _save_shards(state, temporary / SHARDS)
        if ranks.first:
            save_tensors(weights, temporary / WEIGHTS)
            if not is_sharded(model):
                save_tensors(state, temporary / OPTIMIZER)
            ranks.wait()
            written = [file for file in temporary.rglob("*") if file.is_file()]
            files = {str(file.relative_to(temporary)): _fingerprint(file) for file in written}
            text = json.dumps({**asdict(position), "files": files}, indent=1)
            (temporary / STATE).write_text(text, encoding="utf-8")
        else:
            ranks.wait()
    return path


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The live state dict; a shared tensor once, under its first name."""
    first = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in first}


def gather_weights(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """The whole weights on rank 0, nothing on the others; all ranks call it together."""
    gathered = {}
    for name, tensor in weights_of(model).items():
        full = whole(tensor)
        if ranks.first:
            gathered[name] = full
    return gathered


def read_position(path: Path) -> Position:
    """Where training was at a checkpoint; `CheckpointError` if any of its files is damaged."""
    state = _read_state(path)
    with malformed(path / STATE, "the state of a checkpoint"):
        for name, wanted in state.pop("files").items():
            _verify(path / name, wanted)
        return TypeAdapter(Position).validate_python(state)


def restore_tensors(path: Path, *, model: nn.Module, optimizers: Optimizers) -> None:
    """Fill model and optimizers from a checkpoint folder."""
    _copy_into(weights_of(model), path / WEIGHTS)
    state = optimizers.state()
    if (path / SHARDS).is_dir():
        _load_shards(state, path / SHARDS)
    else:
        _copy_into(state, path / OPTIMIZER)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for path in sorted(folder.glob("step-*"))[:-keep]:
        remove_folder(path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = parse_json((path / STATE).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(_damaged(path / STATE, "the file is missing")) from None
    except ValueError as error:
        raise CheckpointError(_damaged(path / STATE, f"it is not JSON ({error})")) from None
    fields = {*Position.__dataclass_fields__, "files"}
    if not isinstance(state, dict) or {"heldout", *state} != fields:  # once there was no heldout
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
        "then resumes at the checkpoint before it (or at the start)"
    )


def _fingerprint(file: Path) -> dict[str, Any]:
    with open(file, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


@torch.no_grad()
def _copy_into(targets: Mapping[str, Tensor], file: Path) -> None:
    try:
        stored = load_tensors(file)
    except SafetensorError as error:
        raise CheckpointError(_damaged(file, str(error))) from None
    if missing := sorted(set(targets) ^ set(stored)):
        raise CheckpointError(
            f"{file} does not fit the model: {len(missing)} tensors are in only one of them, "
            f"for example {missing[0]!r}"
        )
    for name, target in targets.items():
        if target.shape != stored[name].shape:  # of the whole tensor, also when it is sharded
            raise CheckpointError(
                f"{file} does not fit the model: {name} is {tuple(stored[name].shape)} there and "
                f"{tuple(target.shape)} here"
            )
        target.copy_(shard_like(stored[name], target))


def _save_shards(state: dict[str, Tensor], folder: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save(state, checkpoint_id=folder)


def _load_shards(state: dict[str, Tensor], folder: Path) -> None:
    """Fill the tensors of `state` from shards that any number of ranks may have written."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    alone = not (dist.is_available() and dist.is_initialized())
    try:
        with warnings.catch_warnings():  # it warns of a single process, which is meant here
            warnings.filterwarnings("ignore", "torch.distributed is (disabled|unavailable)")
            dcp.load(state, checkpoint_id=folder, no_dist=alone)
    except dcp.api.CheckpointException as error:
        raise CheckpointError(f"{folder} does not fit the model: {error}") from None
