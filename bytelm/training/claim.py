"""Which directory a call trains in: found or made, held against others, and fit to resume in.

A directory is claimed by its lock for as long as training runs, and a new one is claimed by making
it, which only one process can do: so two calls never write to one run. A run directory that was
made for nothing (because the data cannot be read, say) is removed again.
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bytelm.arch.base import STORED, ByteModel
from bytelm.data.settings import SETTINGS
from bytelm.errors import CheckpointError, RecipeError
from bytelm.files import disk_errors, is_vacant
from bytelm.locks import LOCK, Lock, holder, try_lock
from bytelm.recipe import Recipe
from bytelm.registry import architecture
from bytelm.run import RECIPE, Run
from bytelm.training.distributed import Ranks
from bytelm.vocab import TokenVocab, Vocab

# sections in which a resumed run may differ from what it began with
_FREE = ("name", "train", "evaluate", "log", "schedule")
_FIXED_IN_TRAIN = ("batch_bytes", "context_bytes", "dtype")


@contextmanager
def claimed_run(recipe: Recipe, ranks: Ranks, *, path: Path | None, resume: bool) -> Iterator[Run]:
    """The directory a call trains in, locked against other calls inside the context.

    A given path must be free, or hold a run to resume. Without one: runs/NAME, the first free of
    runs/NAME, runs/NAME-2, ...; or, to resume, the last of these that was begun. All ranks call it
    together, and the first one holds the lock.
    """
    claims: list[_Claim] = []

    def claim() -> Path:
        claims.append(_claim(recipe, path=path, resume=resume))
        return claims[0].run.path

    run = Run(ranks.of_first(claim))
    try:
        yield run
    finally:
        for claimed in claims:
            claimed.lock.release()
            if claimed.made and not run.exists and is_vacant(run.path):
                run.path.rmdir()


@dataclass(frozen=True)
class _Claim:
    """A run directory, its lock, and whether the directory was made for it."""

    run: Run
    lock: Lock
    made: bool

    @classmethod
    def of(cls, run: Run, *, made: bool) -> "_Claim":
        """The run at a path that exists; `RecipeError` if another process trains in it."""
        file = run.path / LOCK
        with disk_errors(run.path):
            lock = try_lock(file)
        if lock is None:
            raise RecipeError(
                f"{run.path} is being trained by {holder(file)}: wait for it, or choose another "
                "--run directory"
            )
        return cls(run, lock, made)


def _claim(recipe: Recipe, *, path: Path | None, resume: bool) -> _Claim:
    if path is not None:
        return _claim_given(Run(Path(path)), resume=resume)
    number, previous = 1, None
    while True:
        run = Run(Path("runs") / _numbered(recipe.name, number))
        if not run.path.exists():
            if resume and previous:
                return _claim_given(previous, resume=True)
            if _made(run.path):
                return _Claim.of(run, made=True)
        previous, number = run, number + 1


def _claim_given(run: Run, *, resume: bool) -> _Claim:
    claim = _Claim.of(run, made=_made(run.path))
    refusal = None
    if run.exists and not resume:
        refusal = (
            f"{run.path} already holds a run: add --resume to continue it, or choose another "
            "--run directory"
        )
    elif not run.exists and not is_vacant(run.path):
        refusal = (
            f"{run.path} is not empty and is not a run directory (it has no {RECIPE}): "
            "choose another --run directory"
        )
    elif run.has_model and run.description().quantization:
        refusal = (
            f"{run.path} holds quantized weights, which cannot be trained: train the run they were "
            "exported from"
        )
    if refusal:
        claim.lock.release()
        raise RecipeError(refusal)
    return claim


def _made(path: Path) -> bool:
    """Make the folder; -> False if it is there already."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise RecipeError(f"{path} is a file: choose another --run directory") from None
            return False
    return True


def check_resumable(recipe: Recipe, run: Run, vocab: Vocab, arguments: Mapping[str, Any]) -> None:
    """Refuse to resume with settings, ids `vocab`, or further `arguments` of the model (such as the
    classes found in the data) that would make another run of it."""
    try:
        begun = run.recipe().to_dict()
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"cannot read {run.path / RECIPE}: {error}") from None
    now = recipe.to_dict()
    ids = run.description().vocab if run.has_model else vocab
    if isinstance(ids, TokenVocab) and isinstance(vocab, TokenVocab) and ids != vocab:
        raise RecipeError(
            f"{recipe.data.tokenizer} is not the tokenizer that {run.path} was begun with: resume "
            f"with data.tokenizer={run.path}, which keeps a copy"
        )
    stored = run.description().arguments if run.has_model else arguments
    for name, value in arguments.items():
        if stored.get(name) != value:
            raise RecipeError(
                f"{run.path} was begun with other {name} in its data ({stored.get(name)}; now "
                f"{value}): restore the data, or start a new run"
            )
    begun["model"], now["model"] = _effective(begun["model"]), _effective(now["model"])
    for tree in (begun, now):  # ranges to skip are added after a loss spike
        tree["data"].pop("skip")
        tree["data"].pop("workers")  # who prepares a batch changes nothing in it
        for name in ("train", "heldout", *SETTINGS):  # checkpoints know what came of them
            tree["data"].pop(name, None)
        if tree["data"].get("tokenizer"):  # its content was compared
            tree["data"]["tokenizer"] = "the same"
    changed = [key for key in sorted({*begun, *now} - set(_FREE)) if begun.get(key) != now.get(key)]
    changed += [
        f"train.{key}" for key in _FIXED_IN_TRAIN if begun["train"][key] != now["train"][key]
    ]
    if changed:
        raise RecipeError(
            f"{run.path} was begun with other settings of {', '.join(changed)}: resume it with its "
            f"own recipe ({run.path / RECIPE}), or start a new run. Only {', '.join(_FREE[1:])}, "
            "data.skip, data.workers, where the data is and how it is read may change"
        )


def _effective(model: Mapping[str, Any]) -> dict[str, Any]:
    """A [model] section without what has no effect, which older runs may hold."""
    kind: type[ByteModel] = architecture(model["arch"])
    settings = {name: value for name, value in model.items() if name not in ("arch", "from")}
    try:
        config = kind.Config.model_validate(settings, context=STORED)
    except ValidationError:
        return dict(model)
    plain = config.model_dump(mode="json")
    for idle in config.idle():
        if idle.entry is None:
            plain.pop(idle.setting, None)
        elif idle.entry < len(plain.get(idle.setting) or ()):
            plain[idle.setting][idle.entry] = idle.unset[0]
    return {"arch": model["arch"], **plain}


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
