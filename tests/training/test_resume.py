"""A run that is killed anywhere and resumed equals one that never was, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bytelm import files
from bytelm.training import loop as loop_module
from bytelm.training import train
from bytelm.training.metrics import read_metrics
from tests.training.runs import outcome, tiny_recipe

# the operations by which files come to be; a kill just before each of them is tried
OPERATIONS = ("replace", "fsync", "link", "unlink")


def train_until_killed(recipe, run: Path, *, operation: int, resume: bool) -> bool:
    """Train in a child that kills itself before its `operation`-th file operation; -> killed?"""
    child = os.fork()
    if child == 0:
        seen = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal seen
                seen += 1
                if seen > operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in OPERATIONS:
            setattr(files.os, name, counted(getattr(os, name)))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        status = 1
        try:
            train(recipe, run_dir=run, resume=resume)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    recipe = tiny_recipe(folder)
    return recipe, outcome(train(recipe, run_dir=folder / "run"))


@pytest.mark.parametrize("operation", [0, 3, 7, *range(10, 75, 5), 76, 77, 78, 79])
def test_killed_before_any_file_operation_then_resumed(uninterrupted, tmp_path, operation):
    recipe, expected = uninterrupted
    assert train_until_killed(recipe, tmp_path / "run", operation=operation, resume=False)
    train(recipe, run_dir=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


def test_killed_again_and_again_while_resuming(uninterrupted, tmp_path):
    recipe, expected = uninterrupted
    for kills in range(20):
        # resuming alone takes a dozen operations, a checkpoint some fifteen
        operation = 35 + 3 * (kills % 5)
        if not train_until_killed(recipe, tmp_path / "run", operation=operation, resume=True):
            break
    assert kills >= 2
    assert outcome(tmp_path / "run") == expected


def test_killed_between_checkpoints(uninterrupted, tmp_path, monkeypatch):
    recipe, expected = uninterrupted
    step = loop_module.Trainer._step

    class Killed(BaseException):
        pass

    def dies_at_step_8(self, batch, done):
        if self.position.step == 7:
            raise Killed
        step(self, batch, done)

    monkeypatch.setattr(loop_module.Trainer, "_step", dies_at_step_8)
    with pytest.raises(Killed):
        train(recipe, run_dir=tmp_path / "run")
    monkeypatch.undo()
    assert outcome(tmp_path / "run")[0][-1]["step"] == 7  # rows past the checkpoint of step 6
    train(recipe, run_dir=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


def test_resuming_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    recipe, expected = uninterrupted
    run = train(recipe, run_dir=tmp_path / "run")
    assert outcome(train(recipe, run_dir=run, resume=True)) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_from_it(
    uninterrupted, tmp_path, monkeypatch, number
):
    recipe, expected = uninterrupted
    step = loop_module.Trainer._step

    def signalled_at_step_5(self, batch, done):
        step(self, batch, done)
        if self.position.step == 5:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop_module.Trainer, "_step", signalled_at_step_5)
    with pytest.raises(SystemExit) as stopped:
        train(recipe, run_dir=tmp_path / "run")
    assert stopped.value.code == 128 + number
    assert (tmp_path / "run" / "trainer" / "step-00000005").is_dir()
    monkeypatch.undo()
    train(recipe, run_dir=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


@pytest.mark.slow
def test_six_kills_from_outside_at_random_times(tmp_path):
    overrides = ["train.steps=130", "evaluate.every=40", "train.checkpoint_every=10"]
    recipe = tiny_recipe(tmp_path, *overrides)
    expected = outcome(train(recipe, run_dir=tmp_path / "whole"))
    off = ["evaluate.final=false"]
    (tmp_path / "recipe.toml").write_text(recipe.override(off).to_toml())
    run = tmp_path / "run"
    command = [sys.executable, "-m", "bytelm", "train", str(tmp_path / "recipe.toml")]
    command += ["--run", str(run), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    chance = random.Random(0)
    kills = 0
    for trial in range(7):
        # killed a random moment after it has trained on from where the last one was
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wanted = last_step(run) + chance.randrange(8, 20)
        while process.poll() is None and (trial == 6 or last_step(run) < wanted):
            time.sleep(0.01)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 6
    assert process.returncode == 0
    assert outcome(run)[0] == expected[0]
    assert outcome(run)[1] == expected[1]


def last_step(run: Path) -> int:
    """The step of the last whole row, 0 before any."""
    try:
        return max((row["step"] for row in read_metrics(run / "metrics.jsonl")), default=0)
    except FileNotFoundError:
        return 0
