"""Skips, curriculum and buckets as a recipe sets them: exact on resume, refused where senseless."""

import shutil

import pytest

from bytelm.errors import RecipeError
from bytelm.training import loop as loop_module
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe

CURRICULUM = "data.curriculum=[[0.0, 4], [0.25, 8], [0.5, 16]]"


@pytest.fixture
def rows_trained(monkeypatch):
    """Every row of targets that any training step was given, in order."""
    seen = []
    step = loop_module.Trainer._step

    def spy(self, batch, done):
        seen.append(batch.targets.tolist())
        step(self, batch, done)

    monkeypatch.setattr(loop_module.Trainer, "_step", spy)
    return seen


def test_a_curriculum_changes_the_rows_and_not_the_bytes(tmp_path, rows_trained):
    train(tiny_recipe(tmp_path), run_dir=tmp_path / "plain")
    plain = list(rows_trained)
    rows_trained.clear()
    train(tiny_recipe(tmp_path, CURRICULUM), run_dir=tmp_path / "run")
    assert [len(step[0]) for step in rows_trained] == [4] * 3 + [8] * 3 + [16] * 6
    for step, other in zip(rows_trained, plain, strict=True):
        assert sum(step, []) == sum(other, [])


@pytest.mark.parametrize("setting", [CURRICULUM, "data.policy=bucket", "data.skip=[[10, 13]]"])
def test_a_stopped_run_goes_on_exactly(tmp_path, setting):
    recipe = tiny_recipe(tmp_path, setting)
    whole = train(recipe, run_dir=tmp_path / "whole")
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "trainer" / "step-00000012")  # back at step 9
    train(recipe, run_dir=run, resume=True)
    assert outcome(run) == outcome(whole)


def test_a_run_goes_back_before_a_spike_and_skips_what_caused_it(tmp_path, rows_trained):
    recipe = tiny_recipe(tmp_path, "train.keep_last=4")
    run = train(recipe, run_dir=tmp_path / "run")
    before = sum(rows_trained, [])  # 4 rows a step
    rows_trained.clear()
    for step in (9, 12):
        shutil.rmtree(run / "trainer" / f"step-{step:08}")
    train(recipe.override(["data.skip=[[26, 29]]"]), run_dir=run, resume=True)
    after = sum(rows_trained, [])
    assert after[:2] == before[24:26] and after[2:20] == before[30:48]
    samples = [row["samples"] for row in outcome(run)[0] if "samples" in row]
    assert samples == [4, 8, 12, 16, 20, 24, 32, 36, 40, 44, 48, 52]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.curriculum=[[0.0, 4], [0.5, 8]]"], "the last must be train.context_bytes"),
        (["data.curriculum=[[0.0, 5], [0.5, 16]]"], "each must divide it"),
        (["data.curriculum=[[0.1, 4], [0.5, 16]]"], "ascend from 0.0"),
        (["data.curriculum=[[0.0, 4], [0.0, 16]]"], "ascend from 0.0"),
        (["data.curriculum=[[0.0, 4.5], [0.5, 16]]"], "share of training, bytes per row"),
        (["data.curriculum=[]"], "data.curriculum"),
        ([CURRICULUM, "data.policy=bucket"], "other than 'bucket'"),
        ([CURRICULUM, "objective.kind=fim"], "objective.kind 'causal'"),
        ([CURRICULUM, "data.policy=record", "data.record_size=8"], "data.record_size"),
        (["data.skip=[[5, 4]]"], "must be in order"),
        (["data.skip=[5]"], "data.skip"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(tmp_path, *settings)


def test_workers_change_nothing_and_may_change_on_resume(tmp_path):
    alone = train(tiny_recipe(tmp_path), run_dir=tmp_path / "alone")
    run = shutil.copytree(alone, tmp_path / "run")
    shutil.rmtree(run / "trainer" / "step-00000012")
    with_workers = tiny_recipe(tmp_path, "data.workers=2")
    train(with_workers, run_dir=run, resume=True)
    assert outcome(run) == outcome(alone)
    assert outcome(train(with_workers, run_dir=tmp_path / "other")) == outcome(alone)
