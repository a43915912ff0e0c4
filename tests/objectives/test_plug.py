"""A new objective is one file and one entry point: it trains, judges and reports end to end."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from bytelm.arch.base import ModelOutput
from bytelm.data import Batch
from bytelm.errors import RecipeError
from bytelm.objectives import Setup
from bytelm.objectives.base import add_sums
from bytelm.objectives.causal import Causal
from bytelm.recipe import Recipe
from bytelm.registry import OBJECTIVES
from bytelm.training import train
from bytelm.training.distributed import Ranks
from tests.training.runs import outcome, tiny_recipe

PLUGIN = '''
from dataclasses import replace

from pydantic import Field

from bytelm.data.windows import causal_batch
from bytelm.objectives import Objective, ObjectiveConfig


class Config(ObjectiveConfig):
    odd: bool = Field(True, description="whether only odd positions are predicted")


class EverySecond(Objective):
    """Predicts every second byte, and is judged by how many it gets right."""

    Config = Config
    better = "higher"
    specials = ("bos", "eos")

    def batch(self, windows, samples):
        batch = causal_batch(windows.rows(samples))
        targets = batch.targets.clone()
        targets[:, int(self.config.odd)::2] = -100
        return replace(batch, targets=targets)

    def measure(self, batch, output):
        right = output.logits.argmax(-1).cpu() == batch.targets
        return {"right": float(right.sum()), "all": float(self.count(batch))}

    def figures(self, sums):
        return {"hits": sums["right"] / sums["all"]}
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    place = tmp_path / "site"
    (place / "every_second-1.0.dist-info").mkdir(parents=True)
    (place / "every_second.py").write_text(PLUGIN)
    (place / "every_second-1.0.dist-info/METADATA").write_text("Name: every-second\nVersion: 1.0\n")
    (place / "every_second-1.0.dist-info/entry_points.txt").write_text(
        "[bytelm.objectives]\nevery-second = every_second:EverySecond\n"
    )
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("every_second", None)


def test_an_objective_of_another_package_trains_end_to_end(plugin, tmp_path):
    recipe = tiny_recipe(tmp_path, "objective.kind=every-second", "objective.odd=false")
    run = train(recipe, run_dir=tmp_path / "run")
    rows, _ = outcome(run)
    assert {"hits", "heldout_hits"} <= {key for row in rows for key in row}
    assert not any("bits_per_byte" in key for row in rows for key in row)
    best = max(row["heldout_hits"] for row in rows if "heldout_hits" in row)
    state = json.loads((run / "trainer/step-00000012/state.json").read_text())
    assert state["best"] == best
    assert Recipe.load(run / "recipe.toml").objective.settings == {"odd": False}
    with pytest.raises(RecipeError, match="did you mean 'odd'"):
        tiny_recipe(tmp_path, "objective.kind=every-second", "objective.ood=1")


def test_every_setting_of_every_objective_says_what_it_is():
    for name in OBJECTIVES.built_in:
        for field, info in OBJECTIVES.get(name).Config.model_fields.items():
            assert info.description, f"objective.{field} of {name}"


def test_unknown_kinds_and_switched_kinds(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'fim'"):
        tiny_recipe(tmp_path, "objective.kind=fmi")
    fim = tiny_recipe(tmp_path, "objective.kind=fim", "objective.rate=0.25")
    assert fim.objective.settings["rate"] == 0.25 and fim.objective.settings["documents"] == 4
    assert Recipe.from_dict(fim.to_dict()) == fim
    assert fim.override(["objective.kind=causal"]).objective.settings == {}
    with pytest.raises(RecipeError, match="predicts the ids of a tokenizer"):
        tiny_recipe(tmp_path, "objective.kind=tokens")


def test_likelihood_figures_do_not_depend_on_how_a_batch_is_cut():
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.integers(0, 257, (6, 5)))
    logits = torch.from_numpy(rng.normal(size=(6, 5, 264)))
    batch = Batch(ids=targets, targets=targets, raw_bytes=int((targets < 256).sum()))
    objective = Causal(Causal.Config(), Setup())

    def measured(part: Batch, logits: torch.Tensor):
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part.targets.flatten())
        return objective.measure(part, ModelOutput(logits=logits, loss=loss))

    whole = objective.figures(measured(batch, logits))
    for parts in (2, 4, 7):
        sums = {}
        for part, piece in zip(batch.split(parts), logits.tensor_split(parts), strict=True):
            sums = add_sums(sums, measured(part, piece))
        assert objective.figures(sums) == pytest.approx(whole, rel=1e-12)


def test_sums_keep_their_names_and_shapes_over_ranks():
    sums = {"nats": 1.5, "table": torch.eye(3, dtype=torch.float64), "count": 4}
    total = Ranks(torch.device("cpu")).total_sums(sums)
    assert total["nats"] == 1.5 and total["count"] == 4
    assert torch.equal(total["table"], sums["table"])
    assert Ranks(torch.device("cpu")).total_sums({}) == {}


def test_a_vocabulary_has_the_sentinels_that_its_objective_names():
    class Spans(Causal):
        specials = ("bos", "eos", "sentinel_0", "sentinel_1")

    assert Spans(Causal.Config(), Setup()).vocab["sentinel_1"] == 265
    assert Causal(Causal.Config(), Setup()).vocab.size == 264
