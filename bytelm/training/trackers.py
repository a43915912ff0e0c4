"""Trackers: copies of the metrics for TensorBoard, Weights & Biases and trackio.

`metrics.jsonl` is the record; a tracker is a window on it, so one that fails is reported once and
dropped, and training continues. Only a missing package stops a run, before it begins. Rows go out
as they are, numbers only. What a tracker prints goes to stderr, as everything but results does. W&B
works offline (in the run directory, for `wandb sync`) unless WANDB_MODE says otherwise, so a
machine without a network or an account never waits for one.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from bytelm.errors import MissingExtraError
from bytelm.run import Run

PROJECT = "bytelm"
Settings = Mapping[str, Any]  # the whole recipe, as nested plain values


class Tracker(Protocol):
    """Where numbers go besides metrics.jsonl. Any method may raise anything."""

    def write(self, numbers: Mapping[str, float], *, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Path, settings: Settings, *, step: int):
        import tomli_w
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what a killed run wrote after the checkpoint it resumes at
        self._writer = SummaryWriter(str(Run(run).tensorboard), purge_step=step + 1)
        self._writer.add_text("recipe", f"```toml\n{tomli_w.dumps(settings)}\n```", step)

    def write(self, numbers: Mapping[str, float], *, step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, resumed under its id."""

    def __init__(self, run: Path, settings: Settings, *, step: int):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=Run(run).tracker_id(),
            resume="allow",
            dir=str(run),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            config=dict(settings),
        )

    def write(self, numbers: Mapping[str, float], *, step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of trackio: a local database, shown by `trackio show`."""

    def __init__(self, run: Path, settings: Settings, *, step: int):
        import trackio

        name = f"{run.name}-{Run(run).tracker_id()}"
        trackio.init(PROJECT, name=name, config=dict(settings), resume="allow")
        self._trackio = trackio  # not its run: what it does at exit would speak on stdout

    def write(self, numbers: Mapping[str, float], *, step: int) -> None:
        self._trackio.log(dict(numbers), step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, Callable[..., Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


class Trackers:
    """The trackers of one run; only rank 0 has any. `warn` is told of each that fails, once."""

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        settings: Settings,
        *,
        step: int,
        warn: Callable[[str], object],
    ):
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            self._guard(name, partial(self._start, name, run, settings, step=step))

    def write(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.jsonl."""
        step = row["step"]
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
        if numbers:
            for name, tracker in list(self._open.items()):
                self._guard(name, partial(tracker.write, numbers, step=step))

    def close(self) -> None:
        """Send what is left."""
        for name, tracker in list(self._open.items()):
            self._guard(name, tracker.close)
        self._open.clear()

    def _start(self, name: str, run: Path, settings: Settings, *, step: int) -> None:
        self._open[name] = TRACKERS[name](run, settings, step=step)

    def _guard(self, name: str, action: Callable[[], object]) -> None:
        """Do it; on any failure of the tracker warn and continue without it."""
        try:
            with redirect_stdout(sys.stderr):
                action()
        except Exception as error:
            self._open.pop(name, None)
            why = f"{type(error).__name__}: {error}"
            self._warn(f"warning: the tracker {name} failed ({why}); training continues without it")


def require_trackers(names: Sequence[str]) -> None:
    """`MissingExtraError` for a tracker whose package is not installed."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # no origin: a folder of that name, no package
            raise MissingExtraError(name, "track", f"log.trackers = [{name!r}]")
