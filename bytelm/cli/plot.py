"""`bytelm plot`: the learning curves of runs as an image."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import complete_models
from bytelm.cli.output import note
from bytelm.errors import BytelmError, CheckpointError
from bytelm.model_paths import no_model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(plot)


def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories.", autocompletion=complete_models),
    ],
    out: Annotated[Path, typer.Option(help="The image to write: .png, .svg or .pdf.")],
) -> None:
    """Draw training and held-out figures over steps, of one run or of several to compare."""
    for run in runs:
        if not run.is_dir():
            raise CheckpointError(no_model(run))
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise BytelmError(f"--out is an image that ends in .png, .svg or .pdf, not {out}")
    from bytelm.evaluate.curve import plot_runs

    plot_runs(runs, out)
    note(f"wrote {out}")
