"""What [data] and [objective] of a recipe mean: where training meets the data layer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bytelm.data import Batch, BatchStream, Corpus, DataState, Windows
from bytelm.recipe import Recipe


class TrainingData:
    """Batches of a recipe's training data for one rank, and its held-out windows."""

    def __init__(self, recipe: Recipe, *, rank: int, world: int):
        self.recipe, self.rank, self.world = recipe, rank, world
        self.windows = open_windows(recipe, recipe.data.train, shuffle=True)

    def heldout(self) -> Windows | None:
        """The held-out windows, in the order of the data."""
        paths = self.recipe.data.heldout
        return open_windows(self.recipe, paths, shuffle=False) if paths else None

    def start(self) -> dict[str, Any]:
        """The position before the first batch."""
        return DataState().to_dict()

    def batches(self, position: dict[str, Any]) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """(batch, the position after it) for ever, from `position` on."""
        stream = BatchStream(
            self.windows,
            self.recipe.objective,
            batch_windows=self.recipe.train.batch_windows,
            rank=self.rank,
            world_size=self.world,
            state=DataState.from_dict(position),
        )
        for batch, state in stream:
            yield batch, state.to_dict()


def open_windows(recipe: Recipe, paths: Sequence[str], *, shuffle: bool) -> Windows:
    """The windows of corpora at `paths`, cut as the recipe says."""
    return Windows(
        Corpus.open([find_data(path) for path in paths]),
        length=recipe.train.context_bytes,
        policy=recipe.data.policy,
        record_size=recipe.data.record_size,
        seed=recipe.seed,
        shuffle=shuffle,
    )


def find_data(path: str) -> str:
    """`path` as given, or below the repository when only that exists (bundled samples)."""
    bundled = Path(__file__).resolve().parents[2] / path
    here = Path(path)
    if not here.is_absolute() and not _matches(here) and _matches(bundled):
        return str(bundled)
    return path


def _matches(path: Path) -> bool:
    """Whether a path exists, or a glob pattern has a match."""
    parent = Path(*path.parts[:-1])
    return path.exists() or (parent.is_dir() and any(parent.glob(path.name)))
