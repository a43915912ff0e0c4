"""Drawing into files with matplotlib (extra `plots`), without ever opening a window."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bytelm.errors import MissingExtraError
from bytelm.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_picture(path: Path, draw: Callable[["Axes"], None]) -> None:
    """Write what `draw` puts on one pair of axes as an image; its kind is that of the suffix.

    Raises `MissingExtraError` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "Plotting") from None
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    kind = path.suffix.removeprefix(".") or "png"
    write_file(path, partial(figure.savefig, dpi=120, format=kind))


def whole_ticks() -> "object":
    """A locator of ticks that stands at whole numbers only: what is counted has no halves."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
