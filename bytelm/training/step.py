"""Forward and backward over one global batch, however it is cut into ranks and micro-batches.

A micro-batch with n of the N loss terms of the whole step (all ranks, all micro-batches) has weight
n/N: for its mean loss, for its extra loss terms and for the statistics that are logged. So the
gradient is that of the mean over all N terms, whatever the cut of rows into micro-batches. An extra
term that is not a mean over rows is averaged over the cuts instead, so for it the cut does matter:
the ratio loss of an H-Net (arXiv:2507.07955, equation 10) is bilinear in F, the share of bytes cut
at, and G, the mean boundary probability, over a micro-batch (`nn.ranks` sums both over the ranks).
The mean over micro-batches of F * G differs from the F * G of the whole batch by the covariance of
F and G among them, which is small when each holds thousands of bytes. The exact one would take F of
all micro-batches before the first backward pass, that is a second forward pass.

A batch may have fewer rows than it is cut into (rows of tokens are packed, for one). A micro-batch
without a row on any rank is left out everywhere; one that has rows on other ranks only is a row
without a valid position here, so that every rank takes part in the same exchanges, and counts for
nothing.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from bytelm.data.batch import Batch
from bytelm.objectives import Objective
from bytelm.objectives.base import Sums, add_sums
from bytelm.training.distributed import Ranks, accumulating
from bytelm.training.precision import autocast


@dataclass(frozen=True)
class StepResult:
    """What one global batch gave, over all ranks.

    sums        the objective's measurements, summed
    total_loss  the mean loss with the extra terms: what was differentiated
    raw_bytes   bytes of data that were predicted or read
    stats       the model's statistics and extra terms, averaged
    """

    sums: Sums
    total_loss: float
    raw_bytes: int
    stats: dict[str, float]


def forward_backward(
    model: nn.Module,
    batch: Batch,
    *,
    objective: Objective,
    parts: int,
    dtype: str,
    ranks: Ranks,
) -> StepResult:
    """Add the gradient of this rank's `batch`, cut into `parts` micro-batches, to the model."""
    micros = batch.split(parts)
    terms, raw_bytes, *rows = ranks.total(
        [objective.count(batch), batch.raw_bytes, *(len(micro.ids) for micro in micros)]
    )
    used = [micro for micro, anywhere in zip(micros, rows, strict=True) if anywhere]
    sums: Sums = {}
    means: dict[str, float | Tensor] = {"total_loss": 0.0}
    for i, micro in enumerate(used):
        here = micro if len(micro.ids) else batch.without_content()
        weight = objective.count(here) / max(terms, 1)
        with accumulating(model, last=i == len(used) - 1):
            with autocast(ranks.device, dtype):
                output = model(here.to(ranks.device))
            total = sum(output.aux.values(), start=output.loss)
            # data-parallel wrappers average over the ranks; `weight` already counts all of them
            (total * (weight * ranks.world)).backward()
        sums = add_sums(sums, objective.measure(here, output))
        for name, value in {"total_loss": total, **_named(output)}.items():
            means[name] = means.get(name, 0.0) + (weight * _number(value) if weight else 0.0)
    averages = dict(zip(means, ranks.total(list(means.values())), strict=True))
    return StepResult(
        sums=ranks.total_sums(sums),
        total_loss=averages.pop("total_loss"),
        raw_bytes=int(raw_bytes),
        stats=averages,
    )


def _named(output) -> dict[str, Tensor | float]:
    return {**{f"aux/{name}": term for name, term in output.aux.items()}, **output.stats}


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
