"""Which number format the matrix products of a run use: `train.dtype = "auto"` decided by a test.

bfloat16 autocast pays where the processor multiplies it in hardware (GPUs; CPUs with AMX or
AVX512-BF16) and loses several times over where it is emulated, and even with the hardware small
models may lose it again in casts. So `auto` times a forward and backward pass of the very model on
a row of its data. (One core of an AMD EPYC with AVX512-BF16: a step of the tiny recipes is 1.5 to 2
times as fast.) The answer is stored with the checkpoint: a resumed run does not ask again.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from bytelm.training.distributed import Ranks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def autocast(device: torch.device, dtype: str) -> AbstractContextManager:
    """The context a forward pass runs in."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def resolve_dtype(
    wanted: str, ranks: Ranks, trial: Callable[[str], object]
) -> tuple[str, dict[str, float]]:
    """`wanted`, or what rank 0 finds faster for "auto", and the seconds it measured, if it did.

    trial: runs one forward and backward pass in the dtype it is given; all ranks run it together.
    """
    if wanted != "auto":
        return wanted, {}
    if not ranks.broadcast(has_fast_bfloat16(ranks.device)):
        return "float32", {}
    if ranks.device.type == "cuda":
        return "bfloat16", {}
    seconds = ranks.broadcast({dtype: compute_seconds(trial, dtype) for dtype in DTYPES})
    return min(seconds, key=seconds.__getitem__), seconds


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    x = {dtype: torch.ones(512, 512, dtype=DTYPES[dtype]) for dtype in DTYPES}
    seconds = {dtype: compute_seconds(lambda dtype: x[dtype] @ x[dtype], dtype) for dtype in DTYPES}
    return seconds["bfloat16"] < seconds["float32"]


def compute_seconds(trial: Callable[[str], object], dtype: str) -> float:
    """CPU seconds of one pass: the quicker of two, after one to warm up."""
    times = []
    for _ in range(3):
        start = time.process_time()
        trial(dtype)
        times.append(time.process_time() - start)
    return min(times[1:])
