"""The learning curve of runs, as a picture: training and held-out figures over steps."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.errors import CheckpointError
from bytelm.pictures import save_picture, whole_ticks
from bytelm.run import Run
from bytelm.training.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HELDOUT = "heldout_"


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw the curves of run directories over one another into the image `out`.

    Raises `CheckpointError` for a directory without metrics.
    """
    rows = {path.name or str(path): _rows(path) for path in runs}
    save_picture(out, partial(draw_curves, runs=rows))


def draw_curves(axes: "Axes", *, runs: dict[str, list[dict[str, Any]]]) -> None:
    """For each run the figure that leads its evaluations: in training as a thin line, on held-out
    data with points. runs: name -> rows of metrics.jsonl."""
    figures = []
    for number, (name, rows) in enumerate(runs.items()):
        figure = _headline(rows)
        figures.append(figure.replace("_per_", "/").replace("_", " "))
        own = f"{name}, " if len(runs) > 1 else ""
        for key, what, style in (
            (figure, "training", {"linewidth": 0.8, "alpha": 0.6}),
            (_HELDOUT + figure, "held-out", {"marker": "o", "markersize": 3}),
        ):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=f"C{number}", label=own + what, **style)
    axes.set(xlabel="step", ylabel=" or ".join(dict.fromkeys(figures)), title=", ".join(runs))
    axes.xaxis.set_major_locator(whole_ticks())  # type: ignore[arg-type]
    axes.grid(alpha=0.3)
    axes.legend()


def _rows(run: Path) -> list[dict[str, Any]]:
    metrics = Run(run).metrics
    if not metrics.is_file():
        raise CheckpointError(f"{run} has no {metrics.name}: give a run directory of bytelm train")
    rows = list(read_metrics(metrics))
    if not any("loss" in row for row in rows):
        raise CheckpointError(f"{metrics} has no rows of training yet")
    return rows


def _headline(rows: Sequence[dict[str, Any]]) -> str:
    """The first figure of the evaluations; of a run without any bits per byte, else the loss."""
    for row in rows:
        for key in row:
            if key.startswith(_HELDOUT):
                return key.removeprefix(_HELDOUT)
    return "bits_per_byte" if any("bits_per_byte" in row for row in rows) else "loss"
