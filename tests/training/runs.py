"""A recipe small enough to train in well under a second, and how two runs are compared."""

import json
from pathlib import Path

from bytelm.recipe import Recipe
from bytelm.training.build import build_objective, open_corpora
from bytelm.training.data import TrainingData
from bytelm.training.metrics import TIMING

TEXT = b"".join(b"%d bottles of beer on the wall, %d bottles of beer. " % (n, n) for n in range(99))


def tiny_recipe(folder: Path, *overrides: str) -> Recipe:
    """One layer, 12 steps of 4 windows of 16 bytes, a checkpoint every 3 steps."""
    (folder / "train.txt").write_bytes(TEXT)
    (folder / "heldout.txt").write_bytes(TEXT[::-1][:300])
    tree = {
        "seed": 7,
        "model": {"arch": "transformer", "layers": 1, "d_model": 16, "heads": 2, "hidden": 32},
        "data": {"train": [f"{folder}/train.txt"], "heldout": [f"{folder}/heldout.txt"]},
        "train": {
            "steps": 12,
            "batch_bytes": 64,
            "context_bytes": 16,
            "dtype": "float32",
            "checkpoint_every": 3,
        },
        "evaluate": {"every": 4, "bytes": 100},
        "log": {"every": 1},
    }
    return Recipe.from_dict(tree, overrides=overrides)


def data_of(recipe: Recipe, **ranks: int) -> TrainingData:
    """The data of a recipe as a training run opens it."""
    corpora = open_corpora(recipe)
    objective = build_objective(recipe, corpora)
    settings = {"data": recipe.data, "train": recipe.train, "seed": recipe.seed}
    return TrainingData(corpora, objective, **settings, **ranks)


def outcome(run: Path) -> tuple[list[dict], bytes]:
    """What two equal runs share to the last bit: metrics without timing, and weights."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for field in TIMING:
            row.pop(field, None)
    return rows, (run / "model.safetensors").read_bytes()
