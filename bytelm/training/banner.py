"""What is said when a run begins and when it is stopped: what is trained, until when, and where."""

import math
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import torch

from bytelm.arch.base import ByteModel
from bytelm.recipe import Recipe
from bytelm.run import RECIPE, Run
from bytelm.training.data import TrainingData
from bytelm.training.distributed import Ranks


def opening(
    recipe: Recipe, run: Run, *, model: ByteModel, data: TrainingData, dtype: str, ranks: Ranks
) -> Iterator[str]:
    """The lines at the start, and which documents the policy `truncate` leaves unread."""
    parameters = sum(p.numel() for p in model.parameters())
    threads = torch.get_num_threads()
    ranked = f", {ranks.world} ranks ({recipe.train.distributed})" if ranks.world > 1 else ""
    yield (
        f"{recipe.name}: {recipe.model.arch} of {parameters:,} parameters on {ranks.device} in "
        f"{dtype}, {threads} thread{'s' if threads > 1 else ''}{ranked}"
    )
    held = None if data.heldout is None else data.heldout.corpus
    yield f"data: {_size(data.windows.corpus)} to train on, " + (
        "nothing held out" if held is None else f"{_size(held)} held out"
    )
    yield from data.notes.lines()
    yield f"until {limits(recipe)}; {recipe.train.batch_bytes:,} bytes per step in rows of " + (
        f"{recipe.train.context_bytes:,}"
    )
    yield f"run directory: {run.path}"
    for what, windows in (("training", data.windows), ("held-out", data.heldout)):
        documents, size = (0, 0) if windows is None else windows.truncated
        if windows is not None and documents:
            yield (
                f"{documents:,} of {len(windows.corpus):,} {what} documents are longer than "
                f"{windows.length:,} bytes: the {size:,} bytes beyond are not read"
            )


def limits(recipe: Recipe) -> str:
    """When a run ends, in the words of its recipe."""
    train = recipe.train
    named = [f"train.steps = {train.steps:,}"] if train.steps else []
    named += [f"train.bytes = {train.bytes:,}"] if train.bytes else []
    if train.max_minutes:
        named += [f"train.max_minutes = {train.max_minutes:g} ({train.clock} time)"]
    return " or ".join(named)


def unfinished(limit: str, *, done: float) -> str:
    """What to say where a limit came before the schedule's end."""
    return (
        f"warning: {limit} came at {done:.1%} of the training, before the learning rate had "
        "fallen: the model is worse than it would be at the end. Raise that limit and resume"
    )


def diverged(step: int, *, loss: float, norm: float, checkpoint: Path | None) -> str:
    """What to say when loss or gradients are not finite."""
    what, value = ("gradient norm", norm) if math.isfinite(loss) else ("loss", loss)
    good = (
        f"The last good checkpoint is {checkpoint}" if checkpoint else "There is no checkpoint yet"
    )
    return (
        f"the {what} is {value} at step {step}; the weights were not updated. {good}. Try a lower "
        "optimizer.lr (or muon_lr), a longer schedule.warmup, optimizer.clip=1.0, or "
        "train.dtype=float32, in a new run"
    )


def stopped(run: Run, *, step: int, number: int) -> str:
    """What to say after a signal: what was saved, and how to resume."""
    folder = shlex.quote(str(run.path))
    return (
        f"stopped by {signal.Signals(number).name} after step {step:,}; everything is saved in "
        f"{run.path}. Resume with: bytelm train {shlex.quote(str(run.path / RECIPE))} "
        f"--run {folder} --resume"
    )


def _size(corpus) -> str:
    documents = len(corpus)
    return f"{corpus.total_bytes:,} bytes in {documents:,} document{'s' if documents != 1 else ''}"
