"""Which paths can hold a model, told by names alone, and what to say of one that holds none.

Nothing here loads a model or imports torch, so that the command line finds a mistaken path at once;
`bytelm.load` says the same words later.
"""

import difflib
from pathlib import Path

from bytelm.errors import CheckpointError
from bytelm.registry import LOADERS

_CONFIG, _RECIPE = "config.json", "recipe.toml"
_WHAT = (
    "a run directory (bytelm train prints its path), a Hugging Face model directory or a .gguf file"
)
_SHOWN = 5  # models that a message lists at most


def require_model(path: Path) -> None:
    """Raise `CheckpointError` where no loader can find a model at `path`.

    >>> require_model(Path("runs/missing"))
    Traceback (most recent call last):
    bytelm.errors.CheckpointError: there is no model at runs/missing: ...
    """
    foreign = set(LOADERS.names()) - set(LOADERS.built_in)
    if not path.exists() or not (foreign or _looks_like_model(path)):
        raise CheckpointError(no_model(path))


def no_model(path: Path) -> str:
    """What to say of a path at which there is no model: what is there instead, the nearest one."""
    if run := _run_around(path):
        return f"{path} is a part of a run: give its directory, {run}"
    if path.is_dir():
        if (path / _RECIPE).is_file():
            return f"{path} is a run without a model yet ({_CONFIG} is missing): resume it first"
        inside = [found.name for found in models_in(path)]
        if inside:
            more = ", ..." if len(inside) > _SHOWN else ""
            return f"{path} is no model but holds some: {', '.join(inside[:_SHOWN])}{more}"
        return f"{path} is not a model: it has no {_CONFIG}. A model is {_WHAT}"
    if path.exists():
        return f"{path} is not a model. A model is {_WHAT}"
    here = models_in(path.parent) if path.parent.is_dir() else []
    known = [*here, *(models_in(Path("runs")) if path.parent == Path() else [])]
    names = {found.name: found for found in reversed(known)}
    if near := difflib.get_close_matches(path.name, names, n=1, cutoff=0.5):
        return f"there is no model at {path}; did you mean {names[near[0]]}? A model is {_WHAT}"
    if path.parent == Path() and path.name in _recipe_names():
        return (
            f"there is no model at {path}: it is a recipe, from which `bytelm train {path}` makes "
            f"the run runs/{path}"
        )
    return f"there is no model at {path}: give {_WHAT}"


def models_in(folder: Path) -> list[Path]:
    """What looks like a model directly in a folder, by name; hidden files and folders are not."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in entries if path.name[0] != "." and _looks_like_model(path)]


def _looks_like_model(path: Path) -> bool:
    return (path / _CONFIG).is_file() or (path.suffix == ".gguf" and path.is_file())


def _run_around(path: Path) -> Path | None:
    """The run directory that a file, or a checkpoint in trainer/, is a part of."""
    outer = path.parents[1] if path.parent.name == "trainer" else path.parent
    if not path.exists() or path.suffix == ".gguf" or (path / _CONFIG).is_file():
        return None
    return outer if (outer / _CONFIG).is_file() else None


def _recipe_names() -> set[str]:
    from bytelm.recipe import recipe_folders

    return {file.stem for folder in recipe_folders() for file in folder.glob("*.toml")}
