"""Pictures of an inspection: which bytes, how long the documents, of which formats.

The axis of byte counts is logarithmic, and so is that of lengths, because both spread over many
powers of ten; what is counted in documents has ticks at whole numbers.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bytelm.data.inspect import Inspection
from bytelm.pictures import save_picture, whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = 20  # as many as fit under one another


def plot_inspection(totals: Inspection, folder: Path) -> list[Path]:
    """Write bytes.png, lengths.png and formats.png into `folder`; -> their paths."""
    written = []
    for name, draw in (("bytes", draw_bytes), ("lengths", draw_lengths), ("formats", draw_formats)):
        written.append(folder / f"{name}.png")
        save_picture(written[-1], partial(draw, totals=totals))
    return written


def draw_bytes(axes: "Axes", totals: Inspection) -> None:
    """How often each byte value occurs."""
    axes.bar(np.arange(256), totals.histogram, width=1.0)
    axes.set(
        title="How often each byte occurs", xlabel="byte value", ylabel="count", xlim=(-0.5, 255.5)
    )
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xticks([*range(0, 256, 32), 255])


def draw_lengths(axes: "Axes", totals: Inspection) -> None:
    """How many documents of each length: one bar a power of two, empty documents first."""
    powers = [size.bit_length() for size in totals.sizes]
    axes.bar(np.arange(max(powers, default=0) + 1), np.bincount(powers, minlength=1))
    axes.set(title="Lengths", xlabel="document length (bytes)", ylabel="documents")
    axes.yaxis.set_major_locator(whole_ticks())  # type: ignore[arg-type]
    shown = range(0, max(powers, default=0) + 1, 4)
    axes.set_xticks(list(shown), ["0" if power == 0 else f"{1 << power - 1:,}" for power in shown])


def draw_formats(axes: "Axes", totals: Inspection) -> None:
    """Documents of each format, the most frequent at the top."""
    common = totals.formats.most_common(_FORMATS)[::-1]
    axes.barh([name for name, _ in common], [count for _, count in common])
    axes.set(title="Formats", xlabel="documents")
    axes.xaxis.set_major_locator(whole_ticks())  # type: ignore[arg-type]
