"""`train.dtype = "auto"` and `train.compile = "auto"`: decided by timing this model on its data.

A trial is a forward and backward pass over one row, outside distributed wrappers. Compiling takes a
minute or several before it gains anything, so it is tried only where the training is expected to
last an hour, and kept where a pass is then a twentieth faster. What was measured and decided is
said at the beginning and written to metrics.jsonl; a resumed run keeps what its checkpoint has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bytelm.recipe_sections import TrainSettings
from bytelm.training.distributed import Ranks
from bytelm.training.precision import compute_seconds, resolve_dtype

LONG_ENOUGH = 3600.0  # seconds of training from which compiling is tried
_WORTH = 0.95  # of the eager time


class Compilable(Protocol):
    """A module that `torch.compile` can be switched on and off for."""

    def compile(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Choices:
    """dtype, whether to compile, and what was measured, in words ("" = nothing was)."""

    dtype: str
    compile: bool
    measured: str


def choose(
    train: TrainSettings,
    model: Compilable,
    ranks: Ranks,
    trial: Callable[[str], object],
) -> Choices:
    """The settings, with "auto" decided; all ranks call it together and get the same.

    model  what is compiled; left as it should be
    trial  runs one row forward and backward in the dtype it is given
    """
    dtype, seconds = resolve_dtype(train.dtype, ranks, trial)
    said = [", ".join(f"{name} {s:.3g} s per row" for name, s in seconds.items())] * bool(seconds)
    if train.compile != "auto":
        if train.compile:
            model.compile()
        return Choices(dtype=dtype, compile=train.compile, measured="; ".join(said))
    eager = seconds.get(dtype) or ranks.broadcast(compute_seconds(trial, dtype))
    expected = expected_seconds(train, row_seconds=eager)
    if expected < LONG_ENOUGH:
        return Choices(dtype=dtype, compile=False, measured="; ".join(said))
    try:
        model.compile()
        compiled = compute_seconds(trial, dtype)
    except Exception as error:  # no compiler, or what it cannot follow: of every type
        compiled = float("inf")
        said.append(f"compiling failed ({type(error).__name__})")
    compiled = ranks.broadcast(compiled)
    kept = compiled < _WORTH * eager
    if not kept:
        model._compiled_call_impl = None  # type: ignore[attr-defined]
    said.append(f"compiled {compiled:.3g} s, eager {eager:.3g} s per row")
    return Choices(dtype=dtype, compile=kept, measured="; ".join(said))


def expected_seconds(train: TrainSettings, *, row_seconds: float) -> float:
    """How long the training will last, from the time of one row; a lower bound if it has only steps
    or bytes, for optimizer and evaluation are left out.

    >>> expected_seconds(TrainSettings(bytes=10 * 8192), row_seconds=0.5)
    80.0
    """
    step = row_seconds * train.batch_windows
    found = [
        *([train.steps * step] if train.steps else []),
        *([train.bytes / train.batch_bytes * step] if train.bytes else []),
        *([60 * train.max_minutes] if train.max_minutes else []),
    ]
    return min(found)
