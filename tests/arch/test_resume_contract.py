"""Every registered architecture trains with the trainer, and resumes bit for bit."""

import json
from pathlib import Path

import pytest

from bytelm.recipe import Recipe
from bytelm.registry import ARCHITECTURES
from bytelm.training import train
from tests.arch.cases import CASES
from tests.training.runs import outcome

OBJECTIVES = {
    "causal": {"kind": "causal"},
    "seq2seq": {"kind": "seq2seq"},
    "encoder": {"kind": "classification", "labels": "label"},
}


def records(folder: Path) -> str:
    """Pairs with a label, which every family finds something to learn in."""
    rows = [
        {"text": f"{n} bottles of beer", "source": str(n), "target": f"{n:b}", "label": str(n % 2)}
        for n in range(60)
    ]
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def recipe_of(arch: str, folder: Path, *, steps: int) -> Recipe:
    settings = next(settings for name, settings in CASES.values() if name == arch)
    family = ARCHITECTURES.get(arch).family
    tree = {
        "seed": 5,
        "model": {"arch": arch, **settings},
        "data": {"train": [records(folder)]},
        "objective": OBJECTIVES[family],
        "schedule": {"kind": "constant", "warmup": 1},
        "train": {
            "steps": steps,
            "batch_bytes": 128,
            "context_bytes": 32,
            "dtype": "float32",
            "checkpoint_every": 2,
        },
        "evaluate": {"every": 2},
        "log": {"every": 1},
    }
    if family != "causal":
        tree["data"]["policy"] = "truncate"
    tree["data"]["heldout"] = tree["data"]["train"]
    return Recipe.from_dict(tree)


@pytest.mark.parametrize("arch", ARCHITECTURES.names())
def test_a_resumed_run_equals_one_that_was_never_interrupted(arch, tmp_path):
    whole = train(recipe_of(arch, tmp_path, steps=4), run_dir=tmp_path / "whole")
    train(recipe_of(arch, tmp_path, steps=2), run_dir=tmp_path / "parts")
    recipe = recipe_of(arch, tmp_path, steps=4)
    parts = train(recipe, run_dir=tmp_path / "parts", resume=True)
    rows, weights = outcome(whole)
    assert outcome(parts) == (rows, weights)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
