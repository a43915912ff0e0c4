"""Trackers show what metrics.jsonl holds; whatever happens to them, training goes on."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from bytelm.errors import MissingExtraError, RecipeError
from bytelm.training import trackers as trackers_module
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe


class FakeRun:
    """What wandb.init and trackio.init return, as far as an adapter may use it."""

    def __init__(self):
        self.logged, self.finished = [], 0

    def log(self, numbers, step):
        print("a tracker's chatter")
        self.logged.append({"step": step, **numbers})

    def finish(self):
        self.finished += 1


@pytest.fixture(params=["wandb", "trackio"])
def fake(request, monkeypatch):
    """(name, settings given to init, run) with a fake package of that name installed."""
    module, settings, run = ModuleType(request.param), [], FakeRun()
    module.__spec__ = ModuleSpec(request.param, None, origin="fake")

    def init(project=None, **given):
        settings.append({"project": project, **given})
        return run

    module.init, module.log, module.finish = init, run.log, run.finish
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return request.param, settings, run


def rows_of(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_an_adapter_is_given_every_row_and_resumes_its_run(tmp_path, fake, capfd):
    name, settings, tracked = fake
    recipe = tiny_recipe(tmp_path, f"log.trackers={name}", "schedule.kind=constant")
    run = train(recipe, run_dir=tmp_path / "run", overrides=["train.steps=6"])
    assert tracked.logged == rows_of(run) and tracked.finished == 1
    train(recipe, run_dir=run, resume=True)
    assert tracked.logged == rows_of(run) and tracked.finished == 2
    first, second = settings
    assert first["project"] == "bytelm" and first["config"]["train"]["steps"] == 6
    identity = "id" if name == "wandb" else "name"
    assert first[identity] == second[identity] and second["resume"] == "allow"
    assert capfd.readouterr().out == ""  # stdout is for results


def test_wandb_stays_offline_unless_told(tmp_path, fake, monkeypatch):
    name, settings, _ = fake
    if name != "wandb":
        return
    recipe = tiny_recipe(tmp_path, "log.trackers=wandb", "train.steps=1")
    train(recipe, run_dir=tmp_path / "a")
    monkeypatch.setenv("WANDB_MODE", "online")
    train(recipe, run_dir=tmp_path / "b")
    assert [given["mode"] for given in settings] == ["offline", "online"]
    assert settings[0]["dir"] == str(tmp_path / "a") and settings[0]["id"] != settings[1]["id"]


def test_tensorboard_files_hold_the_metrics_and_a_resumed_run_hides_what_was_lost(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = tiny_recipe(tmp_path, "log.trackers=tensorboard", "schedule.kind=constant")
    run = train(recipe, run_dir=tmp_path / "run", overrides=["train.steps=8"])
    checkpoint = run / "trainer" / "step-00000008"
    checkpoint.rename(run / "trainer" / ".tmp-lost")  # as if killed before it was written
    train(recipe, run_dir=run, resume=True)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("loss", "grad_norm", "heldout_bits_per_byte"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        kept = [(row["step"], pytest.approx(row[name])) for row in rows_of(run) if name in row]
        assert shown == kept


@pytest.mark.parametrize("moment", ["__init__", "write", "close"])
def test_a_tracker_that_fails_is_reported_once_and_changes_nothing(
    tmp_path, monkeypatch, moment, capfd
):
    class Broken:
        def __init__(self, run, settings, *, step):
            self.fail("__init__")

        def fail(self, now):
            if now == moment:
                raise ConnectionError("the network is gone")

        def write(self, numbers, *, step):
            self.fail("write")

        def close(self):
            self.fail("close")

    alone = outcome(train(tiny_recipe(tmp_path), run_dir=tmp_path / "alone"))
    monkeypatch.setitem(trackers_module.TRACKERS, "trackio", Broken)
    monkeypatch.setattr(
        trackers_module, "find_spec", lambda name: ModuleSpec(name, None, origin="")
    )
    recipe = tiny_recipe(tmp_path, "log.trackers=trackio")
    assert outcome(train(recipe, run_dir=tmp_path / "run")) == alone
    assert capfd.readouterr().err.count("ConnectionError: the network is gone") == 1


def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bytelm\[track\]'"):
        train(tiny_recipe(tmp_path, "log.trackers=wandb"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="log.trackers.*'tensorboard', 'wandb' or 'trackio'"):
        tiny_recipe(tmp_path, "log.trackers=wandbb")
