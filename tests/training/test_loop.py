"""Training end to end on a tiny model: exact accumulation, and failures that explain themselves."""

import errno
import json
import math

import pytest
import torch

from bytelm.data import Batch
from bytelm.errors import CheckpointError, DataError, DiskError, RecipeError, TrainingError
from bytelm.training import build, train
from bytelm.training import loop as loop_module
from bytelm.training.build import build_model
from bytelm.training.checkpoint import latest_checkpoint
from bytelm.training.distributed import Ranks
from bytelm.training.metrics import Metrics, read_metrics
from bytelm.training.step import forward_backward
from tests.training.runs import data_of, outcome, tiny_recipe

ALONE = Ranks(torch.device("cpu"))


def test_a_run_writes_what_the_design_says(tmp_path):
    run = train(tiny_recipe(tmp_path), run_dir=tmp_path / "run")
    assert {p.name for p in run.iterdir()} == {
        "config.json", "model.safetensors", "recipe.toml", "metrics.jsonl", "trainer", "best"
    }  # fmt: skip
    assert sorted(p.name for p in (run / "trainer").iterdir()) == ["step-00000009", "step-00000012"]
    rows = list(read_metrics(run / "metrics.jsonl"))
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert {"bits_per_byte", "bytes_seen", "bytes_per_second", "lr", "grad_norm"} <= set(steps[0])
    assert [row["step"] for row in rows if "heldout_bits_per_byte" in row] == [4, 8, 12]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert json.loads((run / "config.json").read_text())["arch"] == "transformer"


def test_the_same_recipe_gives_the_same_run_and_another_seed_does_not(tmp_path):
    first, second, other = (
        outcome(train(tiny_recipe(tmp_path, change), run_dir=tmp_path / name))
        for name, change in (("a", "seed=7"), ("b", "seed=7"), ("c", "seed=8"))
    )
    assert first == second
    assert first[0][0]["loss"] != other[0][0]["loss"]


def test_bits_per_byte_of_an_untrained_zero_head_is_log2_of_the_vocabulary(tmp_path, monkeypatch):
    def zero_head(*args):
        model = build_model(*args)
        torch.nn.init.zeros_(model.lm_head.weight)
        return model

    monkeypatch.setattr(loop_module, "build_model", zero_head)
    recipe = tiny_recipe(tmp_path, "train.steps=1", "evaluate.every=1", "optimizer.lr=1e-30")
    rows = list(read_metrics(train(recipe, run_dir=tmp_path / "run") / "metrics.jsonl"))
    assert rows[0]["loss"] == pytest.approx(math.log(264))
    assert rows[1]["heldout_bits_per_byte"] == pytest.approx(math.log2(264), abs=1e-4)


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("policy", ["concat", "document"])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, parts, policy):
    recipe = tiny_recipe(tmp_path, "train.batch_bytes=96", f"data.policy={policy}")
    data = data_of(recipe)
    batch, _ = next(data.batches())
    # rows of unequal weight: some targets are hidden
    batch.targets[0, 3:] = -100
    batch.targets[4, :2] = -100
    results, gradients = [], []
    for cut in (1, parts):
        model = build(recipe).double()
        settings = {"objective": data.objective, "dtype": "float32", "ranks": ALONE}
        results.append(forward_backward(model, batch, parts=cut, **settings))
        gradients.append([p.grad for p in model.parameters()])
    one, many = (data.objective.figures(result.sums) for result in results)
    assert one == pytest.approx(many, rel=1e-12)
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-10, atol=1e-14)


def test_micro_batches_cover_the_rows_in_order():
    batch = Batch(ids=torch.arange(10).view(5, 2), lengths=torch.arange(5), raw_bytes=10)
    parts = batch.split(2)
    assert torch.equal(torch.cat([p.ids for p in parts]), batch.ids)
    assert torch.equal(torch.cat([p.lengths for p in parts]), batch.lengths)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path, monkeypatch):
    class Poisoned(loop_module.Trainer):
        def _step(self, batch, done):
            if self.position.step == 7:
                self.model.lm_head.weight.data[0, 0] = float("nan")
            super()._step(batch, done)

    monkeypatch.setattr(loop_module, "Trainer", Poisoned)
    with pytest.raises(TrainingError) as caught:
        train(tiny_recipe(tmp_path), run_dir=tmp_path / "run")
    message = str(caught.value)
    assert "step 8" in message and "step-00000006" in message and "optimizer.lr" in message
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path)
    real = loop_module.save_checkpoint
    from bytelm import run as run_module

    saves = 0
    save_file = run_module.save_file

    def full(tensors, file):
        nonlocal saves
        saves += 1
        if saves == 5:  # the weights of the second checkpoint and best model are long written
            file.write_bytes(b"torn")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, file)

    monkeypatch.setattr(run_module, "save_file", full)
    with pytest.raises(DiskError, match="No space left on device.*--resume"):
        train(recipe, run_dir=tmp_path / "run")
    assert real is loop_module.save_checkpoint
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    monkeypatch.undo()
    train(recipe, run_dir=tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(train(recipe, run_dir=tmp_path / "whole"))


def test_a_metrics_row_is_whole_or_absent_when_the_disk_is_full(tmp_path):
    metrics = Metrics(tmp_path / "m.jsonl", step=0)
    metrics.write({"step": 1, "loss": 2.0})
    whole = (tmp_path / "m.jsonl").read_bytes()

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def seek(self, *args):
            return self.file.seek(*args)

        def write(self, data):
            self.file.write(data[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.file.close()

    metrics._file = FullDisk(metrics._file)
    with pytest.raises(DiskError, match="No space left"):
        metrics.write({"step": 2, "loss": 1.0})
    metrics.close()
    assert (tmp_path / "m.jsonl").read_bytes() == whole


def damage_truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def damage_flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, lambda file: file.unlink()])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name, damage):
    recipe = tiny_recipe(tmp_path, "train.steps=3")
    run = train(recipe, run_dir=tmp_path / "run")
    file = latest_checkpoint(run / "trainer") / name
    damage(file)
    with pytest.raises(CheckpointError) as caught:
        train(recipe.override(["train.steps=5"]), run_dir=run, resume=True)
    assert name in str(caught.value)


def test_resuming_with_another_model_or_data_is_refused(tmp_path):
    recipe = tiny_recipe(tmp_path, "train.steps=3")
    run = train(recipe, run_dir=tmp_path / "run")
    for change in ("model.d_model=32", "seed=1", "train.batch_bytes=32", "optimizer.lr=0.1"):
        with pytest.raises(RecipeError, match=change.partition(".")[0].partition("=")[0]):
            train(recipe, run_dir=run, resume=True, overrides=[change])
    (tmp_path / "train.txt").write_bytes(b"other bytes " * 100)
    with pytest.raises(DataError, match="other data"):
        train(recipe, run_dir=run, resume=True, overrides=["train.steps=5"])


def test_an_occupied_run_directory_is_refused(tmp_path):
    recipe = tiny_recipe(tmp_path, "train.steps=1")
    run = train(recipe, run_dir=tmp_path / "run")
    with pytest.raises(RecipeError, match="already holds a run: add --resume"):
        train(recipe, run_dir=run)
    with pytest.raises(RecipeError, match="not a run directory"):
        train(recipe, run_dir=tmp_path)


def test_runs_without_a_given_directory_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(tmp_path, "train.steps=1", "name=mine")
    assert str(train(recipe)) == "runs/mine"
    assert str(train(recipe)) == "runs/mine-2"
    assert str(train(recipe, resume=True, overrides=["train.steps=2"])) == "runs/mine-2"


def test_a_time_limit_ends_a_run_and_completes_its_schedule(tmp_path):
    recipe = tiny_recipe(tmp_path, "train.max_minutes=0.02", "train.clock=cpu")
    rows = list(read_metrics(train(recipe, run_dir=tmp_path / "run") / "metrics.jsonl"))
    rates = [row["lr"] for row in rows if "lr" in row]
    assert 0.6 < max(row["seconds"] for row in rows if "seconds" in row) < 10
    assert rates[-1] < 0.3 * max(rates)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_empty_and_one_byte_files(tmp_path, content):
    recipe = tiny_recipe(tmp_path, "train.steps=2")
    (tmp_path / "train.txt").write_bytes(content)
    if content:
        train(recipe, run_dir=tmp_path / "run")
    else:
        with pytest.raises(DataError, match="empty"):
            train(recipe, run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()
