"""One process or many: who am I, what is summed over everyone, and how the model is wrapped.

Started by torchrun, a run uses DDP (weights on every rank) or FSDP2 (`fully_shard`, weights spread
over ranks); started plainly it is one rank and nothing here communicates. Losses are normalised by
the number of targets over all ranks, so gradients are summed, not averaged: DDP's and FSDP's
division by the number of ranks is undone in the loss.
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bytelm.device import choose_device
from bytelm.errors import BytelmError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and talks to the user."""
        return self.rank == 0

    def total(self, values: Sequence[float | Tensor]) -> list[float]:
        """Each value summed over the ranks, in float64."""
        sums = torch.tensor([float(v) for v in values], dtype=torch.float64)
        if self.world > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        return sums.tolist()

    def total_sums(self, sums: Mapping[str, float | Tensor]) -> dict[str, float | Tensor]:
        """Each entry summed over the ranks, in float64; names and shapes are the same on each."""
        shapes = {name: torch.as_tensor(value).shape for name, value in sums.items()}
        # on the CPU: not every device has float64
        values = [v.cpu() if isinstance(v, Tensor) else v for v in sums.values()]
        flat = [torch.as_tensor(v, dtype=torch.float64).flatten() for v in values]
        totals = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)
        if self.world > 1:
            totals = totals.to(self.device)
            dist.all_reduce(totals)
        parts = totals.cpu().split([shape.numel() for shape in shapes.values()])
        return {
            name: part.reshape(shape) if shape else float(part)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, which alone calls it; its `BytelmError` is every rank's."""
        made, error = None, None
        if self.first:
            try:
                made = make()
            except BytelmError as failed:
                error = failed
        made, error = self.broadcast((made, error))
        if error is not None:
            raise error
        return cast(T, made)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined_ranks(*, device: str = "auto", timeout_minutes: float = 5.0) -> Iterator[Ranks]:
    """The ranks torchrun started (from its environment variables), or this process alone.

    device: where to compute (`bytelm.device`); each rank of a machine has a CUDA device of its own.
    A rank that waits for another longer than the time-out ends with an error; while they find one
    another at the start it may try twice.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, several=world > 1)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(chosen)
        return
    _init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo", timeout_minutes=timeout_minutes
    )
    try:
        yield Ranks(chosen, rank=dist.get_rank(), world=world)
    finally:
        # a data-parallel wrapper that outlives its group ends the group's threads while it holds
        # the interpreter's lock, which they may be waiting for
        gc.collect()
        dist.destroy_process_group()


def _init_process_group(backend: str, *, timeout_minutes: float) -> None:
    """Join the process group, or fail with the name of the setting that allows for more time."""
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    except dist.DistError as error:
        error.add_note(
            f"Rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not meet the others: "
            "one ended, or was not there in time (train.timeout_minutes = "
            f"{timeout_minutes:g}). Its own output says why"
        )
        raise


def wrap(model: nn.Module, kind: str, ranks: Ranks) -> nn.Module:
    """The module to call instead of `model`; the same one for a single process and for FSDP2."""
    if ranks.world == 1:
        return model
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    return _shard(model, ranks)


def is_sharded(model: nn.Module) -> bool:
    """Whether each rank holds only a part of the weights."""
    return any(type(p) is not nn.Parameter for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, gathered from the ranks if each holds a shard."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor.full_tensor()


def shard_like(full: Tensor, reference: Tensor) -> Tensor:
    """This rank's part of `full` (the same on every rank), laid out as `reference` is."""
    if type(reference) in (Tensor, nn.Parameter):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    mesh, placements = reference.device_mesh, reference.placements
    return distribute_tensor(full, mesh, placements, src_data_rank=None)


def accumulating(wrapped: nn.Module, *, last: bool) -> AbstractContextManager:
    """The context of one micro-batch: gradients travel between ranks after the last one only."""
    if isinstance(wrapped, nn.parallel.DistributedDataParallel) and not last:
        return wrapped.no_sync()
    return nullcontext()


def _shard(model: nn.Module, ranks: Ranks) -> nn.Module:
    """FSDP2 over every repeated block (the children of module lists), innermost first, then over
    the rest."""
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(ranks.device.type, (ranks.world,))
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def set_threads(wanted: int) -> None:
    """`wanted` threads; 0 = torch's choice (all cores, or OMP_NUM_THREADS), shared by the ranks."""
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if wanted:
        torch.set_num_threads(wanted)
    elif share > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // share))
