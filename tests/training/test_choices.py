"""dtype and compilation by measurement: what is tried, what is kept, and that it is said."""

import json

import pytest
import torch

from bytelm.recipe_sections import TrainSettings
from bytelm.training import choices, precision, train
from bytelm.training.choices import choose
from bytelm.training.distributed import Ranks
from tests.training.runs import tiny_recipe

RANKS = Ranks(torch.device("cpu"))
LONG, SHORT = {"max_minutes": 100.0}, {"max_minutes": 50.0}


class Model:
    """Counts; compiled it needs `seconds` per row."""

    def __init__(self, seconds: float = 1.0, fails: bool = False):
        self.seconds, self.fails, self._compiled_call_impl = seconds, fails, None

    def compile(self) -> None:
        if self.fails:
            raise RuntimeError("no compiler")
        self._compiled_call_impl = object()


@pytest.fixture
def timed(monkeypatch):
    """Seconds by dtype instead of a clock; with a compiled model its own."""

    def use(model: Model, **eager: float):
        def seconds(trial, dtype):
            return model.seconds if model._compiled_call_impl else eager[dtype]

        for module in (precision, choices):
            monkeypatch.setattr(module, "compute_seconds", seconds)
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)

    return use


@pytest.mark.parametrize(
    ("settings", "compiled", "kept"),
    [
        ({"compile": "auto", **LONG}, 0.9, True),
        ({"compile": "auto", **LONG}, 0.99, False),
        ({"compile": "auto", **SHORT}, 0.1, False),
        ({"compile": "auto", "steps": 10}, 0.1, False),
        ({"compile": True, **SHORT}, 9.0, True),
        ({"compile": False, **LONG}, 0.1, False),
    ],
)
def test_compilation_is_kept_where_it_was_measured_to_pay(timed, settings, compiled, kept):
    model = Model(seconds=compiled)
    timed(model, float32=1.0)
    chosen = choose(TrainSettings(dtype="float32", **settings), model, RANKS, lambda dtype: None)
    assert chosen.compile is kept and (model._compiled_call_impl is not None) is kept
    tried = settings["compile"] == "auto" and settings.get("max_minutes") == 100.0
    assert ("compiled" in chosen.measured) is tried


def test_a_compiler_that_fails_leaves_the_eager_model(timed):
    model = Model(fails=True)
    timed(model, float32=1.0)
    chosen = choose(TrainSettings(dtype="float32", **LONG), model, RANKS, lambda dtype: None)
    assert not chosen.compile and "compiling failed (RuntimeError)" in chosen.measured


@pytest.mark.parametrize(("bfloat16", "wanted"), [(0.5, "bfloat16"), (2.0, "float32")])
def test_the_faster_number_format_is_taken_and_the_figures_are_said(timed, bfloat16, wanted):
    model = Model()
    timed(model, float32=1.0, bfloat16=bfloat16)
    chosen = choose(TrainSettings(steps=1), model, RANKS, lambda dtype: None)
    assert chosen.dtype == wanted
    assert chosen.measured == f"float32 1 s per row, bfloat16 {bfloat16:g} s per row"


def test_a_run_says_what_was_decided_and_keeps_it_when_resumed(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    recipe = tiny_recipe(tmp_path, "train.dtype=auto", "train.steps=3")
    run = train(recipe, run_dir=tmp_path / "run")
    said = capfd.readouterr().err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (decided,) = (row["decided"] for row in rows if "decided" in row)
    assert decided in said and "s per row, bfloat16" in decided
    more = tiny_recipe(tmp_path, "train.dtype=auto", "train.steps=5")
    train(more, run_dir=run, resume=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["decided"] for row in rows if "decided" in row] == [decided]
