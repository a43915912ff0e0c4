"""`bytelm train`: train a recipe, then say how good the result is."""

import os
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(train)


def train(
    recipe: Annotated[str, typer.Argument(help="A name (hnet-tiny) or a path to a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value changes, as train.steps=100")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory; default: the first free runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
) -> None:
    """Train a model; the last line printed is the run directory.

    Progress goes to stderr. Ctrl-C and SIGTERM save a checkpoint first; --resume goes on from it.
    """
    # Spinning OpenMP threads lose up to tenfold on shared cores; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from bytelm.training import train as run_training

    path = run_training(recipe, run_dir=run, resume=resume, overrides=overrides or ())
    if os.environ.get("RANK", "0") == "0":
        print(path)
