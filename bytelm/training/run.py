"""The run directory: the one thing training leaves behind, and all that other commands need.

    config.json          architecture, its config, the vocabulary, context length
    model.safetensors    the newest checkpoint's weights (a hard link where the disk has them)
    recipe.toml          the whole recipe
    tokenizer.json       with data.tokenizer: the tokenizer whose ids the model reads
    metrics.jsonl        one row a line (metrics.py)
    trainer/step-N/      checkpoints to resume from (checkpoint.py): the last `keep_last`
    profile/trace.json   what log.profile_steps asked for (profile.py)
    tensorboard/, ...    what log.trackers asked for (trackers.py)
    best/                config.json, model.safetensors, recipe.toml of the best held-out figure:
                         a small run directory of its own

The weights at the top are replaced only after their checkpoint is complete, so a kill at any moment
leaves a directory that loads and resumes.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bytelm import __version__
from bytelm.arch.base import ByteModel
from bytelm.errors import CheckpointError, RecipeError
from bytelm.files import is_vacant, link_file, sweep, write_file, write_text
from bytelm.recipe import Recipe
from bytelm.training.checkpoint import WEIGHTS, save_tensors

# sections in which a resumed run may differ from what it began with
_FREE = ("name", "train", "evaluate", "log", "schedule")
_FIXED_IN_TRAIN = ("batch_bytes", "context_bytes", "dtype")


@dataclass(frozen=True)
class Run:
    """A run directory at `path`."""

    path: Path

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def profile(self) -> Path:
        return self.path / "profile" / "trace.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "trainer"

    @property
    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "recipe.toml").is_file()

    def recipe(self) -> Recipe:
        """The recipe the run was begun with."""
        return Recipe.load(self.path / "recipe.toml")

    def begin(self, recipe: Recipe, model: ByteModel) -> None:
        """Make the directory and write what describes the model."""
        self.path.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        write_description(self.path, recipe, model)
        self.checkpoints.mkdir(exist_ok=True)
        sweep(self.checkpoints)

    def publish(self, weights: Path) -> None:
        """Make `weights` the run's model."""
        link_file(weights, self.path / WEIGHTS)

    def publish_best(self, recipe: Recipe, model: ByteModel, weights: Mapping[str, Tensor]) -> None:
        """Make the model with these weights the run's best."""
        best = self.path / "best"
        best.mkdir(exist_ok=True)
        sweep(best)
        write_description(best, recipe, model)
        write_file(best / WEIGHTS, lambda temporary: save_tensors(weights, temporary))


def write_description(folder: Path, recipe: Recipe, model: ByteModel) -> None:
    """recipe.toml, which makes a folder a run, config.json, and the tokenizer if there is one."""
    if recipe.data.tokenizer is not None:
        from bytelm.training.tokens import keep_tokenizer

        keep_tokenizer(folder, recipe)
    write_text(folder / "recipe.toml", recipe.to_toml())
    write_text(folder / "config.json", json.dumps(describe(recipe, model), indent=2) + "\n")


def describe(recipe: Recipe, model: ByteModel) -> dict[str, Any]:
    """What config.json holds: enough to build the model again and to use it as it was trained."""
    return {
        "bytelm": __version__,
        "arch": recipe.model.arch,
        "family": model.family,
        "config": model.config.model_dump(mode="json"),
        "vocabulary": model.vocab.to_dict(),
        "context_bytes": recipe.train.context_bytes,
        "objective": recipe.objective.kind,
    }


def choose_run(recipe: Recipe, *, path: Path | None, resume: bool) -> Run:
    """The directory a call trains in.

    A given path must be free, or hold a run to resume. Without one: runs/NAME, the first free of
    runs/NAME, runs/NAME-2, ...; or, to resume, the last of these that was begun.
    """
    if path is not None:
        run = Run(Path(path))
        if run.exists and not resume:
            raise RecipeError(
                f"{run.path} already holds a run: add --resume to go on with it, or choose "
                "another --run directory"
            )
        if not run.exists and run.path.exists() and not is_vacant(run.path):
            raise RecipeError(
                f"{run.path} is not empty and is not a run directory (it has no recipe.toml): "
                "choose another --run directory"
            )
        return run
    number, previous = 1, None
    while (run := Run(Path("runs") / _numbered(recipe.name, number))).path.exists():
        previous, number = run, number + 1
    return previous if resume and previous else run


def check_resumable(recipe: Recipe, run: Run) -> None:
    """Refuse to resume with settings that would make another run of it."""
    try:
        begun = run.recipe().to_dict()
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"cannot read {run.path / 'recipe.toml'}: {error}") from None
    now = recipe.to_dict()
    _check_tokenizer(recipe, run)
    for tree in (begun, now):  # ranges to skip are added after a loss spike
        tree["data"].pop("skip")
        if tree["data"].get("tokenizer"):  # its content was compared
            tree["data"]["tokenizer"] = "the same"
    changed = [key for key in sorted({*begun, *now} - set(_FREE)) if begun.get(key) != now.get(key)]
    changed += [
        f"train.{key}" for key in _FIXED_IN_TRAIN if begun["train"][key] != now["train"][key]
    ]
    if changed:
        raise RecipeError(
            f"{run.path} was begun with other settings of {', '.join(changed)}: resume it with its "
            f"own recipe ({run.path / 'recipe.toml'}), or start a new run. Only "
            f"{', '.join(_FREE[1:])} and data.skip may change"
        )


def _check_tokenizer(recipe: Recipe, run: Run) -> None:
    """Refuse a tokenizer whose content is not that of the run's own copy, wherever it lies."""
    if recipe.data.tokenizer is None or not (run.path / "tokenizer.json").is_file():
        return
    from bytelm.training.tokens import vocab_of

    own = recipe.override([f"data.tokenizer={run.path}"])
    if vocab_of(recipe) != vocab_of(own):
        raise RecipeError(
            f"{recipe.data.tokenizer} is not the tokenizer that {run.path} was begun with: resume "
            f"with data.tokenizer={run.path}, which keeps a copy"
        )


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
