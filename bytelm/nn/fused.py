"""Which of two implementations runs: torch operations, or compiled loops over rows on the CPU.

A chain of torch operations reads and writes its activations once per operation; the loops of
`nn/loops` do it once. They take float32 tensors on the CPU that are large enough to matter, outside
torch.compile, export and function transforms; everything else, and `using("torch")`, takes the
torch code, which is the reference. Second derivatives are always taken through the torch code
(`differentiable`). Loops run on as many threads as torch uses.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 14  # numbers in a tensor below which the call costs more than the loop saves
_ROWS = 64  # rows below which a thread is not worth waking

Implementation = Literal["auto", "torch", "loops"]
_chosen: ContextVar[Implementation] = ContextVar("_chosen", default="auto")


@contextmanager
def using(implementation: Implementation) -> Iterator[None]:
    """Within it: "torch" never runs the loops, "loops" runs them for tensors of any size, in
    float64 too."""
    token = _chosen.set(implementation)
    try:
        yield
    finally:
        _chosen.reset(token)


def use_loops(x: Tensor, *others: Tensor) -> bool:
    """Whether tensors of these kinds go to the loops."""
    chosen = _chosen.get()
    if chosen == "torch" or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    kinds = (torch.float32, torch.float64) if chosen == "loops" else (torch.float32,)
    if x.dtype not in kinds or (chosen == "auto" and x.numel() < SMALLEST):
        return False
    plain = all(
        type(t) in (Tensor, torch.nn.Parameter) and t.dtype == x.dtype for t in (x, *others)
    )
    return plain and x.numel() > 0 and torch._C._functorch.peek_interpreter_stack() is None


def rows_of(x: Tensor) -> tuple[np.ndarray, int]:
    """x (..., D) as a flat array and the distance between its rows; copied only if the rows are not
    evenly spaced."""
    width = x.shape[-1]
    rows = x.numel() // width
    stride = _row_stride(x)
    if stride is None:
        x, stride = x.contiguous(), width
    span = (rows - 1) * stride + width
    return x.detach().as_strided((span,), (1,)).numpy(), stride


def _row_stride(x: Tensor) -> int | None:
    """The distance between consecutive rows of x (..., D), None if it is not always the same."""
    if x.shape[-1] > 1 and x.stride(-1) != 1:
        return None
    sizes = [(n, s) for n, s in zip(x.shape[:-1], x.stride()[:-1], strict=True) if n > 1]
    if not sizes:
        return x.shape[-1]
    for (_, outer), (n, inner) in zip(sizes[:-1], sizes[1:], strict=True):
        if outer != n * inner:
            return None
    return sizes[-1][1] if sizes[-1][1] >= x.shape[-1] else None


def flat(x: Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor."""
    return x.detach().contiguous().view(-1).numpy()


def parts_of(rows: int) -> int:
    """Into how many stretches so many rows are cut."""
    return max(1, min(torch.get_num_threads(), rows // _ROWS))


def over_rows(loop: Callable[..., None], rows: int, *arguments: Any) -> None:
    """loop(part, start, stop, *arguments) for stretches of rows, each on a thread of its own."""
    parts = parts_of(rows)
    edges = [rows * i // parts for i in range(parts + 1)]
    if parts == 1:
        return loop(0, 0, rows, *arguments)
    others = [
        _threads(parts).submit(loop, i, edges[i], edges[i + 1], *arguments) for i in range(1, parts)
    ]
    loop(0, 0, edges[1], *arguments)
    for other in others:
        other.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=count, thread_name_prefix="bytelm-loops")


def differentiable(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of `function` at `inputs`, as functions of inputs and `grad` that can be
    differentiated again: for backward passes that are asked for them."""
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)
