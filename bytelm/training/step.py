"""Forward and backward over one global batch, however it is cut into ranks and micro-batches.

A micro-batch with n of the N targets of the whole step (all ranks, all micro-batches) has weight
n/N: for its mean cross-entropy, for its extra loss terms and for the statistics that are logged.
So the gradient is that of the mean over all N targets, whatever the cut of rows into micro-batches.
An extra term that is not a mean over rows is averaged over the cuts instead, so for it the cut does
matter: the ratio loss of an H-Net (arXiv:2507.07955, equation 10) is bilinear in F, the share of
bytes cut at, and G, the mean boundary probability, over a micro-batch (`nn.ranks` sums both over
the ranks). The mean over micro-batches of F * G differs from the F * G of the whole batch by the
covariance of F and G among them, which is small when each holds thousands of bytes. The exact one
would take F of all micro-batches before the first backward pass, that is a second forward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from bytelm.data.batch import IGNORE, Batch
from bytelm.training.distributed import Ranks, accumulating
from bytelm.training.precision import autocast


@dataclass(frozen=True)
class StepResult:
    """What one global batch gave, over all ranks."""

    loss: float  # mean nats a target, extra terms not included
    objective: float  # loss with the extra terms: what was differentiated
    targets: int
    raw_bytes: int
    stats: dict[str, float]


def forward_backward(
    model: nn.Module, batch: Batch, *, parts: int, dtype: str, ranks: Ranks
) -> StepResult:
    """Add the gradient of this rank's `batch`, cut into `parts` micro-batches, to the model."""
    targets, raw_bytes = ranks.total([count_targets(batch), batch.raw_bytes])
    sums: dict[str, float | Tensor] = {"loss": 0.0, "objective": 0.0}
    for i, micro in enumerate(micro_batches(batch, parts)):
        weight = count_targets(micro) / max(targets, 1)
        with accumulating(model, last=i == parts - 1):
            with autocast(ranks.device, dtype):
                output = model(micro.to(ranks.device))
            objective = sum(output.aux.values(), start=output.loss)
            # data-parallel wrappers average over the ranks; `weight` already counts all of them
            (objective * (weight * ranks.world)).backward()
        values = {"loss": output.loss, "objective": objective, **_named(output)}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + weight * _number(value)
    totals = dict(zip(sums, ranks.total(list(sums.values())), strict=True))
    return StepResult(
        loss=totals.pop("loss"),
        objective=totals.pop("objective"),
        targets=int(targets),
        raw_bytes=int(raw_bytes),
        stats=totals,
    )


def micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    """`batch` cut by rows into `parts` of (nearly) equal size.

    `raw_bytes` is known for whole batches only and is 0 in the parts.
    """
    if parts == 1:
        yield batch
        return
    tensors = {
        f.name: torch.tensor_split(value, parts)
        for f in fields(batch)
        if isinstance(value := getattr(batch, f.name), Tensor)
    }
    for i in range(parts):
        yield replace(batch, raw_bytes=0, **{name: cut[i] for name, cut in tensors.items()})


def count_targets(batch: Batch) -> int:
    """How many positions of the batch carry loss."""
    assert batch.targets is not None, "a training batch has targets"
    return int(torch.count_nonzero(batch.targets != IGNORE))


def _named(output) -> dict[str, Tensor | float]:
    return {**{f"aux/{name}": term for name, term in output.aux.items()}, **output.stats}


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
