"""Held-out bits per byte while training: quick, comparable along a run, not the final figure.

A fixed prefix of the held-out bytes, cut into windows that do not overlap, as in training: every
byte is predicted once, from the bytes before it in its window. The final figure (all held-out
bytes, context carried over in overlapping windows) is the `bytelm eval` one, and is lower.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.windows import Windows
from bytelm.errors import TrainingError
from bytelm.training.distributed import Ranks
from bytelm.training.precision import autocast
from bytelm.training.step import count_targets
from bytelm.vocab import END


@torch.no_grad()
def heldout_bits_per_byte(
    model: torch.nn.Module, windows: Windows, *, limit: int, rows: int, dtype: str, ranks: Ranks
) -> float:
    """Bits per byte over (about) the first `limit` bytes, `rows` windows at a time a rank.

    Every rank calls it and gets the same figure; end symbols are not counted.
    """
    count = min(windows.count, -(-limit // windows.length))
    training = model.training
    model.eval()
    nats, targets = 0.0, 0.0
    for batch in _batches(windows, count=count, rows=rows, ranks=ranks):
        with autocast(ranks.device, dtype):
            output = model(batch.to(ranks.device))
        here = count_targets(batch)
        nats += float(output.loss) * here
        targets += here
    model.train(training)
    nats, targets = ranks.total([nats, targets])
    if not math.isfinite(nats):
        raise TrainingError(
            "the held-out loss is not finite although the training loss is: the held-out data "
            "holds bytes the model cannot score. Lower optimizer.lr, or use train.dtype=float32"
        )
    return nats / math.log(2) / targets


def _batches(windows: Windows, *, count: int, rows: int, ranks: Ranks) -> Iterator[Batch]:
    """This rank's share; every rank gets equally many batches (FSDP needs that), some repeated
    with no targets."""
    for start in range(0, count, rows * ranks.world):
        first = start + ranks.rank * rows
        indices = [i for i in range(first, first + rows) if i < count]
        batch = windows.batch(indices or [0], epoch=0)
        assert batch.targets is not None
        hidden = (batch.targets == END) | (not indices)
        yield replace(batch, targets=batch.targets.masked_fill(hidden, IGNORE))
