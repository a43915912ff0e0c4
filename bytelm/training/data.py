"""What [data] and [objective] of a recipe mean: where training meets the data layer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bytelm.data import (
    OBJECTIVES,
    Batch,
    BatchStream,
    Causal,
    Corpus,
    DataState,
    Fim,
    Mixture,
    Objective,
    Windows,
)
from bytelm.data.bundled import find_data, has_match
from bytelm.data.curriculum import cut_rows, row_length
from bytelm.errors import DataError
from bytelm.recipe import Recipe


class TrainingData:
    """Batches of a recipe's training data for one rank, and its held-out windows."""

    def __init__(self, recipe: Recipe, *, rank: int, world: int):
        self.recipe, self.rank, self.world = recipe, rank, world
        self.objective = make_objective(recipe)
        # a model that learns to infill is still judged by plain next-byte prediction
        self.judged_by = Causal() if isinstance(self.objective, Fim) else self.objective
        self.windows = self._open_training()
        # the recipe's own, not the checkpoint's: skips are added when a run is resumed
        self._skip = tuple((first, last + 1) for first, last in recipe.data.skip)

    def heldout(self) -> Windows | None:
        """The held-out windows in the order of the data, None without held-out data."""
        paths = self.recipe.data.heldout
        return self._open(paths, shuffle=False) if paths else None

    def batches(
        self, position: dict[str, Any] | None = None
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """(batch, the position after it) for ever, from `position` (None: the start) on."""
        state = DataState.from_json(json.dumps(position)) if position else DataState()
        stream = BatchStream(
            self.windows,
            self.objective,
            batch_windows=self.recipe.train.batch_windows,
            rank=self.rank,
            world_size=self.world,
            state=replace(state, skip=self._skip),
        )
        for batch, state in stream:
            yield batch, json.loads(state.to_json())

    def at(self, batch: Batch, done: float) -> Batch:
        """The batch as data.curriculum has it at share `done` of training."""
        if (curriculum := self.recipe.data.curriculum) is None:
            return batch
        return cut_rows(batch, length=row_length(curriculum, done=done))

    def _open_training(self) -> Windows | Mixture:
        data = self.recipe.data
        if data.weights is None:
            return self._open(data.train, shuffle=True)
        sources = [self._open([path], shuffle=True) for path in data.train]
        return Mixture(sources, weights=data.weights)

    def _open(self, paths: Sequence[str], *, shuffle: bool) -> Windows:
        corpus = open_data(paths)
        if corpus.total_bytes == 0:
            raise DataError(f"{', '.join(paths)} is empty: there is not one byte to learn from")
        return Windows(
            corpus,
            length=self.objective.window_length(self.recipe.train.context_bytes),
            policy=self.recipe.data.policy,
            record_size=self.recipe.data.record_size,
            bucket_rows=self.recipe.train.batch_windows,
            seed=self.recipe.seed,
            shuffle=shuffle,
        )


def make_objective(recipe: Recipe) -> Objective:
    """The objective a recipe's [objective] section describes, over bytes or its tokenizer's ids."""
    if recipe.data.tokenizer is not None:
        from bytelm.training.tokens import objective_of

        return objective_of(recipe)
    settings = recipe.objective.model_dump(exclude={"kind"})
    objective = OBJECTIVES[recipe.objective.kind](**settings)
    return replace(objective, seed=recipe.seed) if isinstance(objective, Fim) else objective


def heldout_documents(recipe: Recipe) -> list[bytes]:
    """The held-out documents of a recipe, whole; empty without held-out data."""
    if not recipe.data.heldout:
        return []
    corpus = open_data(recipe.data.heldout)
    return [document for i in range(len(corpus)) if (document := bytes(corpus.document(i)))]


def open_data(paths: Sequence[str]) -> Corpus:
    """The corpus of the paths of a recipe; an error tells where relative ones start."""
    found = [find_data(path) for path in paths]
    try:
        return Corpus.open(found)
    except DataError as error:
        if all(Path(path).is_absolute() or has_match(Path(path)) for path in found):
            raise
        raise DataError(
            f"{error} (relative paths in [data] start from the current folder, {Path.cwd()}, "
            "wherever the recipe is)"
        ) from error
