"""One run directory, one trainer: locks, and names that nobody gets twice."""

import os
import subprocess
import sys

import pytest

from bytelm import locks
from bytelm.errors import DataError, RecipeError
from bytelm.loading import load_model
from bytelm.locks import LOCK, try_lock
from bytelm.training import loop as loop_module
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe
from tests.training.test_distributed import HNET


def in_children(count: int, work) -> list[int]:
    """Call `work(number)` in forked processes at the same time; -> exit codes."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                work(number)
                status = 0
            except RecipeError:
                status = 2
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_a_run_that_is_being_trained_is_not_resumed_by_another(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, "schedule.kind=constant", "schedule.warmup=0")
    run = train(recipe.override(["train.steps=3"]), run_dir=tmp_path / "run")
    step, seen = loop_module.Trainer._step, []

    def second_comes_at_step_5(self, batch, done):
        step(self, batch, done)
        if self.position.step == 5:
            with pytest.raises(RecipeError) as caught:
                train(recipe, run_dir=run, resume=True)
            seen.append(str(caught.value))

    monkeypatch.setattr(loop_module.Trainer, "_step", second_comes_at_step_5)
    train(recipe, run_dir=run, resume=True)
    assert f"is being trained by process {os.getpid()}" in seen[0]
    assert not (run / LOCK).exists()
    monkeypatch.undo()
    whole = train(recipe, run_dir=tmp_path / "whole")
    assert outcome(run)[1] == outcome(whole)[1]


def test_runs_that_begin_together_get_paths_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(tmp_path, "train.steps=1", "name=same")
    assert in_children(6, lambda number: train(recipe)) == [0] * 6
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"same", *(f"same-{n}" for n in range(2, 7))}


def test_of_two_that_want_one_given_path_one_gets_it(tmp_path):
    recipe = tiny_recipe(tmp_path, "train.steps=2")
    codes = in_children(4, lambda number: train(recipe, run_dir=tmp_path / "run"))
    assert sorted(codes) == [0, 2, 2, 2]


def test_a_lock_dies_with_its_holder(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from bytelm.locks import try_lock\n"
        "lock = try_lock(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / LOCK])
    assert (tmp_path / LOCK).exists()
    lock = try_lock(tmp_path / LOCK)
    assert lock is not None and try_lock(tmp_path / LOCK) is None
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_a_killed_run_is_resumed_over_its_stale_lock(tmp_path):
    run = train(tiny_recipe(tmp_path, "train.steps=3"), run_dir=tmp_path / "run")
    (run / LOCK).write_text("process 1 on another\n")
    train(tiny_recipe(tmp_path, "train.steps=5"), run_dir=run, resume=True)


def test_a_directory_made_for_nothing_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"")
    recipe = tiny_recipe(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        train(recipe)
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="empty"):
        train(recipe, run_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_where_the_file_system_has_no_locks_this_is_said(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "_lock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked: No locks available"):
        lock = try_lock(tmp_path / LOCK)
    assert lock is not None
    lock.release()


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(RecipeError, match="is a file"):
        train(tiny_recipe(tmp_path), run_dir=tmp_path / "run")


def test_an_old_run_with_a_setting_that_had_no_effect_loads_and_resumes(tmp_path):
    """Such settings are refused since; what was stored before must stay usable."""
    recipe = tiny_recipe(tmp_path, *HNET)
    run = train(recipe.override(["train.steps=3"]), run_dir=tmp_path / "run")
    for file, old, new in (
        ("recipe.toml", 'arch = "hnet"', 'arch = "hnet"\nwindow = [7, -1]'),
        ("config.json", '"window": []', '"window": [7, -1]'),
    ):
        text = (run / file).read_text()
        assert old in text
        (run / file).write_text(text.replace(old, new))
    assert load_model(run).config.window == (7, -1)
    with pytest.raises(RecipeError, match=r"window\[0\] = 7 has no effect"):
        train(run / "recipe.toml", run_dir=run, resume=True, overrides=["train.steps=5"])
    mended = recipe.override(["model.window=[-1, -1]"])
    train(mended, run_dir=run, resume=True)
    with pytest.raises(RecipeError, match="other settings of model"):
        train(mended, run_dir=run, resume=True, overrides=["model.d_state=4"])
