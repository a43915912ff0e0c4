"""What [data] of a recipe means: where training meets the data layer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bytelm.data import Batch, BatchStream, Corpus, DataState, Mixture, Reading, Windows
from bytelm.data.bundled import find_data, has_match
from bytelm.data.corpus.records import RecordFields, open_records
from bytelm.data.curriculum import cut_rows, row_length
from bytelm.data.sources import Notes
from bytelm.data.sources.limits import limits_of
from bytelm.data.sources.spelling import Spelling
from bytelm.data.windows import Policy
from bytelm.errors import DataError
from bytelm.objectives import Objective
from bytelm.paths import to_path
from bytelm.recipe_sections import DataSettings, TrainSettings


class Corpora:
    """The corpora that [data] names, each opened once, when it is first asked for."""

    def __init__(self, data: DataSettings, fields: RecordFields | None = None):
        """fields: what the objective reads from records; None: files are read as they stand."""
        self._data, self._fields = data, fields
        self._reading = reading_of(data)

    @property
    def notes(self) -> Notes:
        """Links and other things that were found and not read."""
        return self._reading.notes

    @cached_property
    def sources(self) -> list[Corpus]:
        """The training corpora that rows are drawn from: one, or one per path with data.weights."""
        if self._data.weights is None:
            return [self._open(self._data.train)]
        return [self._open([path]) for path in self._data.train]

    @cached_property
    def training(self) -> Corpus:
        """All training documents, in the order in which rows number them."""
        return self.sources[0] if len(self.sources) == 1 else Corpus.concat(self.sources)

    @cached_property
    def heldout(self) -> Corpus | None:
        """The held-out documents; None without any."""
        paths = self._data.heldout
        return self._open(paths) if paths else None

    def _open(self, paths: Sequence[str]) -> Corpus:
        return open_data(paths, fields=self._fields, reading=self._reading)


class TrainingData:
    """Batches of a recipe's training data for one rank, and its held-out windows."""

    def __init__(
        self,
        corpora: Corpora,
        objective: Objective,
        *,
        data: DataSettings,
        train: TrainSettings,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self._corpora, self._data, self._train, self._seed = corpora, data, train, seed
        self.objective, self.heldout_objective = objective, objective.heldout_objective()
        sources = [self._windows(corpus) for corpus in corpora.sources]
        self.windows: Windows | Mixture = sources[0]
        if data.weights is not None:
            self.windows = Mixture(sources, weights=data.weights)
        self._rank, self._world = rank, world

    @property
    def notes(self) -> Notes:
        """What was found at the paths of the data and is not read."""
        return self._corpora.notes

    @cached_property
    def heldout(self) -> Windows | None:
        """The held-out windows in the order of the data, None without held-out data."""
        if (corpus := self._corpora.heldout) is None:
            return None
        return heldout_windows(
            corpus, self.objective, data=self._data, train=self._train, seed=self._seed
        )

    def batches(
        self, position: dict[str, Any] | None = None
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """(batch, the position after it) for ever, from `position` (None: the start) on."""
        state = DataState.from_json(json.dumps(position)) if position else DataState()
        # the recipe's own, not the checkpoint's: skips are added when a run is resumed
        skip = tuple((first, last + 1) for first, last in self._data.skip)
        stream = BatchStream(
            self.windows,
            self.objective,
            batch_windows=self._train.batch_windows,
            rank=self._rank,
            world_size=self._world,
            state=replace(state, skip=skip),
            num_workers=self._data.workers,
        )
        for batch, state in stream:
            yield batch, json.loads(state.to_json())

    def with_row_length(self, batch: Batch, done: float) -> Batch:
        """The batch as data.curriculum has it at share `done` of training."""
        if (curriculum := self._data.curriculum) is None:
            return batch
        return cut_rows(batch, length=row_length(curriculum, done=done))

    def _windows(self, corpus: Corpus) -> Windows:
        return _windows(
            corpus,
            self.objective,
            policy=self._data.policy,
            shuffle=True,
            data=self._data,
            train=self._train,
            seed=self._seed,
        )


def heldout_windows(
    corpus: Corpus, objective: Objective, *, data: DataSettings, train: TrainSettings, seed: int
) -> Windows:
    """Held-out windows, as long as those of training with `objective`, in the order in which its
    held-out objective judges them."""
    judge = objective.heldout_objective()
    policy, shuffle = judge.heldout_policy or data.policy, judge.heldout_shuffle
    return _windows(
        corpus, objective, policy=policy, shuffle=shuffle, data=data, train=train, seed=seed
    )


def _windows(
    corpus: Corpus,
    objective: Objective,
    *,
    policy: Policy,
    shuffle: bool,
    data: DataSettings,
    train: TrainSettings,
    seed: int,
) -> Windows:
    if corpus.total_bytes == 0:
        names = ", ".join(str(path) for path in corpus.paths)
        raise DataError(f"{names} is empty: there is not one byte to learn from")
    return Windows(
        corpus,
        length=objective.window_length(train.context_bytes),
        policy=policy,
        record_size=data.record_size,
        bucket_rows=train.batch_windows,
        seed=seed,
        shuffle=shuffle,
    )


def reading_of(data: DataSettings) -> Reading:
    """How [data] of a recipe says that its paths are read; messages name its settings."""
    limits = limits_of(
        max_unpacked=data.max_unpacked,
        max_ratio=data.max_ratio,
        max_nesting=data.max_nesting,
        max_members=data.max_members,
        max_window=data.max_window,
    )
    return Reading(
        field="text" if data.field is None else data.field,
        raw=data.raw,
        strict=data.strict,
        skip_errors=data.skip_errors,
        limits=limits,
        spelling=Spelling(recipe=True),
    )


def documents_of(corpus: Corpus) -> list[bytes]:
    """The documents of a corpus that are not empty, whole, in memory."""
    return [document for i in range(len(corpus)) if (document := bytes(corpus.document(i)))]


def open_data(
    paths: Sequence[str], *, fields: RecordFields | None = None, reading: Reading
) -> Corpus:
    """The corpus of the paths of a recipe; an error tells where relative ones start.

    fields   what is read from records; None: one text per record, as `reading` says
    reading  how; what was found and not read is in its `notes`
    """
    found = [find_data(path) for path in paths]
    try:
        if fields is None:
            return Corpus.open(found, reading=reading)
        return Corpus.concat([open_records(path, fields=fields, reading=reading) for path in found])
    except DataError as error:
        if all(":" in path or path == "-" for path in found):
            raise
        if all(to_path(path).is_absolute() or has_match(to_path(path)) for path in found):
            raise
        raise DataError(
            f"{error} (relative paths in [data] start from the current folder, {Path.cwd()}, "
            "wherever the recipe is)"
        ) from error
