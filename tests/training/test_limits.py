"""When a run ends, what its schedule follows, and what is said and logged about it."""

import os
import re
import signal

import pytest

from bytelm.errors import CheckpointError
from bytelm.recipe import Recipe
from bytelm.training import loop as loop_module
from bytelm.training import train
from bytelm.training.checkpoint import latest_checkpoint
from bytelm.training.metrics import read_metrics
from tests.training.runs import outcome, tiny_recipe

MINUTES = ("train={max_minutes = 3.3, clock = 'cpu', batch_bytes = 64, context_bytes = 16}",)


def limits_of(recipe: Recipe) -> dict:
    return {
        k: v for k, v in recipe.to_dict()["train"].items() if k in ("steps", "bytes", "max_minutes")
    }


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        ([], {"max_minutes": 3.3}),
        (["train.steps=2000"], {"steps": 2000}),
        (["train.max_minutes=1.0"], {"max_minutes": 1.0}),
        (["train.bytes=640"], {"bytes": 640}),
        (["train.bytes=640", "train.max_minutes=1.0"], {"bytes": 640, "max_minutes": 1.0}),
        (["train.steps=2000", "train.max_minutes=1.0"], {"steps": 2000, "max_minutes": 1.0}),
        (["train.steps=2000", "train.clock=cpu"], None),
    ],
)
def test_a_given_limit_drops_the_ones_of_the_file(tmp_path, overrides, left):
    """README's own line, `train.steps=2000`, ended at the file's 3.3 minutes."""
    base = tiny_recipe(tmp_path).override(MINUTES)
    assert limits_of(base) == {"max_minutes": 3.3}
    if left is None:
        with pytest.raises(ValueError, match="train.clock has no effect"):
            base.override(overrides)
        return
    assert limits_of(base.override(overrides)) == left


@pytest.mark.parametrize("name", ["hnet-tiny", "transformer-tiny", "mambabyte-tiny"])
def test_readmes_line_trains_the_steps_it_names(name):
    recipe = Recipe.load(name, overrides=["train.steps=2000"])
    assert limits_of(recipe) == {"steps": 2000}


@pytest.mark.parametrize("limits", [["train.steps=20"], ["train.bytes=1280"]])
def test_the_rates_of_a_run_in_steps_or_bytes_do_not_depend_on_the_clock(
    tmp_path, monkeypatch, limits
):
    base = tiny_recipe(tmp_path)
    rates = []
    for name, slow in (("a", 1.0), ("b", 50.0)):
        clock = iter(range(10**6))
        monkeypatch.setattr(loop_module.time, "monotonic", lambda c=clock, s=slow: next(c) * s)
        overrides = [*limits, "train.max_minutes=1000"]
        run = train(base, overrides=overrides, run_dir=tmp_path / name)
        rates.append([row["lr"] for row in read_metrics(run / "metrics.jsonl") if "lr" in row])
    assert rates[0] == rates[1] and len(rates[0]) == 20
    assert rates[0][-1] < 0.5 * max(rates[0])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.steps=3"], "trained 3 steps: train.steps = 3 is reached"),
        (["train.max_minutes=0.005", "train.clock=cpu"], "train.max_minutes = 0.005 is reached"),
        (["train.bytes=200"], "trained 4 steps: train.bytes = 200 is reached"),
        (
            ["train.bytes=10000000", "train.max_minutes=0.005"],
            "before the learning rate had fallen",
        ),
    ],
)
def test_the_end_says_which_limit_it_was(tmp_path, capfd, overrides, said):
    train(tiny_recipe(tmp_path, *overrides), run_dir=tmp_path / "run")
    assert said in capfd.readouterr().err


def test_the_beginning_says_what_is_trained_on_what_until_when_and_where(tmp_path, capfd):
    recipe = tiny_recipe(tmp_path, "train.device=cpu", "train.threads=1")
    run = train(recipe, run_dir=tmp_path / "run")
    said = capfd.readouterr().err
    assert re.search(r"run: transformer of 11,056 parameters on cpu in float32, \d+ thread", said)
    assert "data: 5,128 bytes in 1 document to train on, 300 bytes in 1 document held out" in said
    assert "until train.steps = 12; 64 bytes per step in rows of 16" in said
    assert f"run directory: {run}" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_at_once_and_says_how_to_resume(tmp_path, monkeypatch, capfd, number):
    step = loop_module.Trainer._step

    def signalled(self, batch, done):
        if self.position.step == 4:
            os.kill(os.getpid(), number)
        step(self, batch, done)

    monkeypatch.setattr(loop_module.Trainer, "_step", signalled)
    with pytest.raises(SystemExit):
        train(tiny_recipe(tmp_path), run_dir=tmp_path / "my run")
    said = capfd.readouterr().err
    assert "stopping after this step" in said and "after step 5" in said
    command = re.search(r"Resume with: bytelm (train .*)", said)[1]
    monkeypatch.undo()
    import shlex

    from typer.testing import CliRunner

    from bytelm.cli.app import app

    done = CliRunner().invoke(app, [*shlex.split(command), "evaluate.final=false"])
    assert done.exit_code == 0, done.output
    assert latest_checkpoint(tmp_path / "my run" / "trainer").name == "step-00000012"


@pytest.mark.parametrize("every", [1, 5, 10, 100])
@pytest.mark.parametrize("limit", ["train.steps=12", "train.bytes=700", "train.max_minutes=0.01"])
def test_every_run_logs_its_last_step_once(tmp_path, every, limit):
    """Runs below ten steps left metrics.jsonl empty."""
    run = train(tiny_recipe(tmp_path, limit, f"log.every={every}"), run_dir=tmp_path / "run")
    rows = [row["step"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    last = int(latest_checkpoint(run / "trainer").name.partition("-")[2])
    expected = [step for step in range(1, last + 1) if step % every == 0 or step == last]
    assert rows == expected


@pytest.mark.parametrize("checkpoint_every", [3, 4, 5, 12])
def test_resuming_a_finished_run_adds_no_row(tmp_path, checkpoint_every):
    """Its last evaluation was appended again where a checkpoint was due at the last step."""
    settings = [f"train.checkpoint_every={checkpoint_every}", "evaluate.every=5"]
    recipe = tiny_recipe(tmp_path, *settings)
    run = train(recipe, run_dir=tmp_path / "run")
    before = outcome(run)
    assert [row["step"] for row in before[0] if "heldout_bits_per_byte" in row] == [5, 10, 12]
    for _ in range(2):
        train(recipe, run_dir=run, resume=True)
        assert outcome(run) == before


def test_a_kill_between_the_last_evaluation_and_its_checkpoint_adds_no_row(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, "train.checkpoint_every=4", "evaluate.every=5")
    expected = outcome(train(recipe, run_dir=tmp_path / "whole"))

    class Killed(BaseException):
        pass

    evaluate = loop_module.Trainer.evaluate

    def dies(self):
        evaluate(self)
        if self.position.step == 12:
            raise Killed

    monkeypatch.setattr(loop_module.Trainer, "evaluate", dies)
    with pytest.raises(Killed):
        train(recipe, run_dir=tmp_path / "run")
    monkeypatch.undo()
    train(recipe, run_dir=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("missing", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_whatever_is_missing_in_the_newest_checkpoint_the_advice_works(tmp_path, missing):
    recipe = tiny_recipe(tmp_path)
    run = train(recipe, run_dir=tmp_path / "run")
    expected = outcome(run)
    newest = latest_checkpoint(run / "trainer")
    (newest / missing).unlink()
    with pytest.raises(CheckpointError, match=f"Delete the folder {newest} and resume") as caught:
        train(recipe, run_dir=run, resume=True)
    assert missing in str(caught.value)
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    train(recipe, run_dir=run, resume=True)
    assert outcome(run) == expected
