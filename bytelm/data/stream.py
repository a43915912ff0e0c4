"""`BatchStream`: batches in a fixed global order, shared by ranks and workers by arithmetic.

The data order is one endless sequence of sample numbers: sample s is row s % count of epoch
s // count. A global batch takes the next `batch_windows` of them, rank r its contiguous share, and
a worker whole batches, so the position is a single number that does not depend on ranks, workers
or batch size. Epochs follow each other without a gap: a batch may hold the end of one and the
start of the next, and nothing is dropped or repeated. Stretches of samples can be skipped, e.g.
those around a loss spike.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bytelm.data.batch import Batch
from bytelm.data.order import Integers
from bytelm.data.windows import Rows, causal_batch
from bytelm.errors import DataError
from bytelm.memory import return_freed_memory

_MAX_SKIPS = 16  # keeps the stored state below 1 KB


class RowSource(Protocol):
    """What a stream reads: `Windows`, or a `Mixture` of them."""

    length: int
    seed: int

    @property
    def fingerprint(self) -> str: ...

    def rows(self, samples: Integers) -> Rows: ...

    def epoch(self, sample: int) -> int: ...


class BatchMaker(Protocol):
    """What makes batches of rows: an objective."""

    def batch(self, windows: Any, samples: Integers) -> Batch: ...


class _Causal:
    """Plain next-byte prediction, where nobody asks for more."""

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        return causal_batch(windows.rows(samples))


@dataclass(frozen=True, kw_only=True)
class DataState:
    """Where a run is in its data. The same on every rank; less than 1 KB as JSON.

    samples      position: number of the next sample (all epochs counted through)
    epoch        the epoch that sample is in
    seed, fingerprint   of the row source; a resumed run must have the same
    skip         ranges [start, stop) of sample numbers to leave out

    >>> DataState.from_json(DataState(samples=8).to_json()).samples
    8
    """

    samples: int = 0
    epoch: int = 0
    seed: int = 0
    fingerprint: str = ""
    skip: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.skip) > _MAX_SKIPS or any(not 0 <= a < b for a, b in self.skip):
            raise DataError(
                f"skip must be at most {_MAX_SKIPS} ranges (start, stop) of sample numbers with "
                f"start < stop, not {self.skip}"
            )

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DataState":
        """The state `to_json` wrote; `DataError` if it is something else."""
        try:
            stored = json.loads(text)
            stored["skip"] = tuple((int(a), int(b)) for a, b in stored["skip"])
            return cls(**stored)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"this is not a stored data position: {error}") from error

    def take(self, count: int) -> tuple[Integers, int]:
        """The next `count` sample numbers outside `skip`, and the position after them."""
        taken: list[Integers] = []
        position, missing = self.samples, count
        for start, stop in sorted(self.skip):
            fits = min(max(start - position, 0), missing)
            taken.append(np.arange(position, position + fits))
            position, missing = position + fits, missing - fits
            if start <= position < stop and missing:
                position = stop
        taken.append(np.arange(position, position + missing))
        return np.concatenate(taken), position + missing


_CAUSAL = _Causal()


class BatchStream:
    """Iterates (batch, state after it) for one rank, from `state` on, without end.

    objective      what makes batches of rows; default: next-byte prediction
    batch_windows  rows of the global batch, over all ranks
    num_workers    processes that make batches in advance; 0 = this one, when they are asked for

    Saving the state of the last batch trained on and giving it to a new stream, with any number of
    ranks or workers, resumes with exactly the rows that were next.

    >>> import tempfile, pathlib; file = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = file.write_bytes(b"to be or not to be")
    >>> from bytelm.data import Corpus, Windows
    >>> stream = BatchStream(Windows(Corpus.open(file), length=4), batch_windows=2)
    >>> batch, state = next(iter(stream)); tuple(batch.ids.shape), state.samples
    ((2, 4), 2)
    """

    def __init__(
        self,
        windows: RowSource,
        objective: BatchMaker = _CAUSAL,
        *,
        batch_windows: int,
        rank: int = 0,
        world_size: int = 1,
        state: DataState | None = None,
        num_workers: int = 0,
    ):
        if batch_windows < 1 or batch_windows % world_size:
            raise DataError(
                f"a global batch of {batch_windows} windows cannot be shared evenly by "
                f"{world_size} ranks: use a multiple of {world_size}"
            )
        assert 0 <= rank < world_size, f"rank {rank} of {world_size}"
        self.windows, self.objective = windows, objective
        self.batch_windows, self.num_workers = batch_windows, num_workers
        self._share = batch_windows // world_size
        self._first = rank * self._share
        self.state = self._bind(state)

    def _bind(self, state: DataState | None) -> DataState:
        """`state` checked against the data, or the start of it."""
        seed, fingerprint = self.windows.seed, self.windows.fingerprint
        if state is None:
            return DataState(seed=seed, fingerprint=fingerprint)
        if state.fingerprint and (state.seed, state.fingerprint) != (seed, fingerprint):
            raise DataError(
                "the data position belongs to other data: the corpus, the window length or "
                f"policy, or the seed has changed (stored seed {state.seed}, now "
                f"{self.windows.seed}). Start a new run, or restore what the run used"
            )
        return replace(state, seed=seed, fingerprint=fingerprint)

    def plan(self, state: DataState) -> tuple[Integers, DataState]:
        """This rank's sample numbers of the next global batch, and the state after that batch."""
        samples, position = state.take(self.batch_windows)
        after = replace(state, samples=position, epoch=self.windows.epoch(position))
        return samples[self._first : self._first + self._share], after

    def __iter__(self) -> Iterator[tuple[Batch, DataState]]:
        if self.num_workers == 0:
            state = self.state
            while True:
                samples, state = self.plan(state)
                yield self.objective.batch(self.windows, samples), state
        plans = _Plans(self)
        loader = DataLoader(
            _Batches(self.windows, self.objective),
            batch_size=None,
            sampler=plans,
            num_workers=self.num_workers,
            collate_fn=_as_is,
            worker_init_fn=_begin_worker,
            # A generator of its own: the loader draws a seed, and must not advance the run's RNG.
            generator=torch.Generator().manual_seed(0),
        )
        state = self.state
        for batch in loader:
            _, state = self.plan(state)
            yield batch, state


class _Plans:
    """Sampler of the loader: one item is the sample numbers of one batch."""

    def __init__(self, stream: BatchStream):
        self._stream = stream

    def __iter__(self) -> Iterator[Integers]:
        state = self._stream.state
        while True:
            samples, state = self._stream.plan(state)
            yield samples


class _Batches(Dataset):
    """Map-style data set whose items are whole batches, named by their sample numbers."""

    def __init__(self, windows: RowSource, objective: BatchMaker):
        self._windows, self._objective = windows, objective

    def __getitem__(self, samples: Integers) -> Batch:
        return self._objective.batch(self._windows, samples)


def _begin_worker(number: int) -> None:
    return_freed_memory()


def _as_is(batch: Any) -> Any:
    return batch
