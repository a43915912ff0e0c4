"""The figures of a trained run on held-out data, whatever its family: what its objective reports.

For models of bytes the figures that `bytelm eval` prints are bits per byte through `ByteLM`, with
context carried over (`evaluate/bits.py`). A classifier or a sequence-to-sequence model is judged
here: by its own objective, made from the run directory alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bytelm.data import Reading, Windows
from bytelm.errors import DataError
from bytelm.loading import load_model
from bytelm.objectives import Objective, Setup
from bytelm.objectives.base import Sums
from bytelm.recipe import Recipe
from bytelm.run import Run
from bytelm.training.data import heldout_windows, open_data
from bytelm.training.distributed import Ranks
from bytelm.training.evaluation import measure_heldout
from bytelm.vocab import BYTES

_ROW_BYTES = 1 << 16  # about how much is read at a time: bounds memory, changes no figure


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an objective says about a model on some data.

    raw_bytes  of all documents
    truncated  documents of which only the beginning was read
    source     what the encoder of a sequence-to-sequence model read first; None: there is none, or
               it has symbols that are no bytes
    """

    objective: Objective
    sums: Sums
    raw_bytes: int
    truncated: int
    source: bytes | None

    def to_dict(self) -> dict[str, Any]:
        """Figures, the headline first, and details: JSON values."""
        figures, details = self.objective.figures(self.sums), self.objective.details(self.sums)
        return {**figures, **details, "bytes": self.raw_bytes, "truncated": self.truncated}

    def text(self) -> str:
        """Figures and tables for a person."""
        report = self.objective.report(self.sums)
        if self.truncated:
            report += f"\n\n{self.truncated:,} documents are judged by their first bytes alone"
        return report


def judge(
    run: str | Path,
    data: Sequence[str],
    *,
    reading: Reading | None = None,
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """The model of a run directory on the whole of `data`: paths as in data.heldout of a recipe, or
    folders, of which every file is taken.

    reading      how the paths are read; of records the run itself says which fields
    device       where to compute
    on_progress  called with windows done and windows in all

    Raises `DataError` for data that its objective cannot read, such as a class it does not know,
    and for a `Reading.field` where the objective names the fields.
    """
    found = Run(Path(run))
    recipe, description = found.recipe(), found.description()
    objective = _objective(recipe, stored=dict(description.arguments))
    reading, fields = reading or Reading(), objective.config.record_fields
    if fields is not None and reading.field != Reading.field:
        names = " and ".join(dict.fromkeys(fields.settings.values()))
        raise DataError(
            f"{reading.spelling.of('field')} has no effect: {run} reads the fields of records that "
            f"{names} of its recipe name"
        )
    corpus = open_data(data, fields=fields, reading=reading)
    windows = heldout_windows(
        corpus, objective, data=recipe.data, train=recipe.train, seed=recipe.seed
    )
    heldout = objective.heldout_objective()
    sums = measure_heldout(
        load_model(found.path).to(device),
        windows,
        heldout,
        limit=None,
        rows=max(1, _ROW_BYTES // windows.length),
        dtype="float32",
        ranks=Ranks(torch.device(device)),
        on_progress=on_progress,
    )
    return Judgement(
        objective=heldout,
        sums=sums,
        raw_bytes=corpus.total_bytes,
        truncated=windows.truncated[0],
        source=_first_source(heldout, windows),
    )


def _first_source(objective: Objective, windows: Windows) -> bytes | None:
    batch = objective.batch(windows, np.zeros(1, dtype=np.int64))
    if batch.source is None:
        return None
    row, length = batch.source.ids[0], batch.source.lengths
    ids = row[: int(length[0]) if length is not None else len(row)].tolist()
    return bytes(ids) if max(ids, default=0) < BYTES else None


def _objective(recipe: Recipe, *, stored: dict[str, Any]) -> Objective:
    """The objective of a finished run, which needs no training data any more."""
    setup = Setup(seed=recipe.seed, stored=stored)
    return recipe.objective_class(recipe.objective_config, setup)
