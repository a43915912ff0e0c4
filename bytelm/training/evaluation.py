"""Held-out figures while training: quick, comparable along a run, not the final ones.

A fixed prefix of the held-out bytes, cut into windows that do not overlap, as in training: every
byte is read or predicted once, from the bytes before it in its window. The final figure of a model
of bytes (all held-out data, context carried over in overlapping windows) is the `bytelm eval` one,
and is lower. What is measured, and what it is called, is the held-out objective's business.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from bytelm.data.batch import Batch
from bytelm.data.windows import Windows
from bytelm.errors import TrainingError
from bytelm.objectives import Objective
from bytelm.objectives.base import Sums, add_sums
from bytelm.training.distributed import Ranks
from bytelm.training.precision import autocast

_LOOK = 1024  # windows whose sizes are added up at a time


@torch.no_grad()
def measure_heldout(
    model: torch.nn.Module,
    windows: Windows,
    objective: Objective,
    *,
    limit: int | None,
    rows: int,
    dtype: str,
    ranks: Ranks,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sums:
    """The objective's sums over the windows with the first `limit` bytes (None: all), `rows`
    windows at a time per rank; on_progress: called with windows done and windows in all.

    Every rank calls it and gets the same sums. `TrainingError` if a figure is not finite.
    """
    count = windows.count if limit is None else windows_within(windows, limit)
    training = model.training
    model.eval()
    sums: Sums = {}
    seen = 0
    for batch, surplus in _batches(windows, objective, count=count, rows=rows, ranks=ranks):
        with autocast(ranks.device, dtype):
            output = model(batch.to(ranks.device))
        measured = objective.measure(batch, output)
        if surplus:
            measured = {name: 0 * value for name, value in measured.items()}
        sums = add_sums(sums, measured)
        seen = min(seen + rows * ranks.world, count)
        if on_progress is not None:
            on_progress(seen, count)
    model.train(training)
    sums = ranks.total_sums(sums)
    if not all(math.isfinite(value) for value in objective.figures(sums).values()):
        raise TrainingError(
            "the held-out loss is not finite although the training loss is: the held-out data "
            "holds bytes the model cannot score. Lower optimizer.lr, or use train.dtype=float32"
        )
    return sums


def windows_within(windows: Windows, limit: int) -> int:
    """How many of the first windows it takes to have `limit` bytes, or all of them."""
    size = 0
    for start in range(0, windows.count, _LOOK):
        sizes = windows.bytes_of(np.arange(start, min(start + _LOOK, windows.count)))
        total = size + np.cumsum(sizes)
        if total[-1] >= limit:
            return start + int(np.searchsorted(total, limit)) + 1
        size = int(total[-1])
    return windows.count


def _batches(
    windows: Windows, objective: Objective, *, count: int, rows: int, ranks: Ranks
) -> Iterator[tuple[Batch, bool]]:
    """This rank's share; every rank gets equally many batches (FSDP needs that), some of them
    surplus, of which nothing counts."""
    for start in range(0, count, rows * ranks.world):
        first = start + ranks.rank * rows
        samples = np.arange(first, min(first + rows, count))
        surplus = not len(samples)
        yield objective.batch(windows, np.zeros(1, dtype=np.int64) if surplus else samples), surplus
