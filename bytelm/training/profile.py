"""A torch.profiler trace of a few steps (`log.profile_steps`), for Perfetto or chrome://tracing.

Rank 0 only: ranks do the same work. Steps are numbered as in metrics.jsonl, from 1; the first few
of a run are slower than the rest, so do not choose these. A run that ends within the range leaves
the trace of what it did.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bytelm.files import write_file


class Profile:
    """Traces steps first to last, both included; `steps` None: nothing."""

    def __init__(self, path: Path, *, steps: Sequence[int] | None):
        self._path, self._steps = path, steps
        self._profiler: profile | None = None

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around one training step."""
        if self._steps and self._steps[0] <= number <= self._steps[1] and self._profiler is None:
            self._profiler = _start()
        yield
        if self._steps and number == self._steps[1]:
            self.close()

    def close(self) -> None:
        """Write the trace, if one was begun."""
        if self._profiler is None:
            return
        self._profiler.stop()
        self._path.parent.mkdir(exist_ok=True)
        profiler, self._profiler = self._profiler, None
        write_file(self._path, lambda temporary: profiler.export_chrome_trace(str(temporary)))


def _start() -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities, record_shapes=True)
    profiler.start()
    return profiler
