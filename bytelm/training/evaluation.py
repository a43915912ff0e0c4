"""Held-out bits per byte while training: quick, comparable along a run, not the final figure.

A fixed prefix of the held-out bytes, cut into windows that do not overlap, as in training: every
byte is predicted once, from the bytes before it in its window. The final figure (all held-out
bytes, context carried over in overlapping windows) is the `bytelm eval` one, and is lower.

For a subword model the nats are those of each window's own canonical tokens and are divided by the
bytes they stand for: an upper bound on the bits of the same windows under the exact byte model,
which adds up every way to write the same bytes.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.objectives import Objective
from bytelm.data.windows import Windows
from bytelm.errors import TrainingError
from bytelm.training.distributed import Ranks
from bytelm.training.precision import autocast
from bytelm.training.step import count_targets


@torch.no_grad()
def heldout_bits_per_byte(
    model: torch.nn.Module,
    windows: Windows,
    objective: Objective,
    *,
    limit: int,
    rows: int,
    dtype: str,
    ranks: Ranks,
) -> float:
    """Bits per byte over (about) the first `limit` bytes, `rows` windows at a time a rank, as
    `objective` makes batches of them.

    Every rank calls it and gets the same figure; end symbols are not counted.
    """
    count = min(windows.count, -(-limit // windows.length))
    training = model.training
    model.eval()
    nats, size = 0.0, 0.0
    for batch in _batches(windows, objective, count=count, rows=rows, ranks=ranks):
        with autocast(ranks.device, dtype):
            output = model(batch.to(ranks.device))
        nats += float(output.loss) * count_targets(batch)
        size += batch.raw_bytes
    model.train(training)
    nats, size = ranks.total([nats, size])
    if not math.isfinite(nats):
        raise TrainingError(
            "the held-out loss is not finite although the training loss is: the held-out data "
            "holds bytes the model cannot score. Lower optimizer.lr, or use train.dtype=float32"
        )
    return nats / math.log(2) / size


def _batches(
    windows: Windows, objective: Objective, *, count: int, rows: int, ranks: Ranks
) -> Iterator[Batch]:
    """This rank's share; every rank gets equally many batches (FSDP needs that), some repeated
    with no targets."""
    for start in range(0, count, rows * ranks.world):
        first = start + ranks.rank * rows
        samples = np.arange(first, min(first + rows, count))
        surplus = not len(samples)
        batch = objective.batch(windows, np.zeros(1, dtype=np.int64) if surplus else samples)
        assert batch.targets is not None
        targets = batch.targets.masked_fill((batch.targets == objective.end) | surplus, IGNORE)
        yield replace(batch, targets=targets, raw_bytes=0 if surplus else batch.raw_bytes)
