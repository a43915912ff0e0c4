"""Several ranks (gloo) train what one process trains; checkpoints fit any number of ranks."""

import os
import signal
import socket
import time
import traceback
from pathlib import Path

import pytest

from bytelm.training import loop as loop_module
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe

HNET = [
    "model.arch=hnet",
    'model.layout=["m1", ["T1"], "m1"]',
    "model.d_model=[16, 32]",
    "model.d_intermediate=[0, 32]",
    "model.num_heads=[0, 2]",
    "model.d_state=8",
    "model.head_dim=8",
    "model.target=[3.0]",
]


def start_ranks(world: int, work) -> list[int]:
    """Fork `world` processes that call `work(rank)` in an environment like torchrun's; -> pids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            status = 1
            try:
                work(rank)
                status = 0
            except SystemExit as stop:
                status = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return children


def wait_for(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train_on(world: int, recipe, run: Path, *, resume: bool = False) -> list[dict]:
    """Train on `world` ranks; -> the metrics rows."""
    statuses = wait_for(start_ranks(world, lambda rank: train(recipe, run_dir=run, resume=resume)))
    assert statuses == [0] * world
    return outcome(run)[0]


def assert_same_curve(rows: list[dict], expected: list[dict]) -> None:
    """Losses equal to 1e-4, norms and statistics to 2e-3: the sums are in another order, in fp32,
    Muon's Gram matrices multiply that by some thousands in directions a gradient hardly has, and 12
    steps carry it on."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            close = 1e-4 if "loss" in key or "bits_per_byte" in key else 2e-3
            assert row[key] == pytest.approx(other[key], rel=close, abs=1e-6), (row["step"], key)


@pytest.mark.parametrize(
    ("kind", "world", "model"),
    [
        pytest.param("ddp", 2, HNET, id="ddp-2-hnet"),
        pytest.param("fsdp", 2, [], id="fsdp-2-transformer"),
        pytest.param("ddp", 2, [], id="ddp-2-transformer", marks=pytest.mark.slow),
        pytest.param("fsdp", 2, HNET, id="fsdp-2-hnet", marks=pytest.mark.slow),
        pytest.param("ddp", 4, HNET, id="ddp-4-hnet", marks=pytest.mark.slow),
        pytest.param("ddp", 4, [], id="ddp-4-transformer", marks=pytest.mark.slow),
        pytest.param("fsdp", 4, HNET, id="fsdp-4-hnet", marks=pytest.mark.slow),
        pytest.param("fsdp", 4, [], id="fsdp-4-transformer", marks=pytest.mark.slow),
    ],
)
def test_ranks_give_the_loss_curve_of_one_process(tmp_path, kind, world, model):
    recipe = tiny_recipe(tmp_path, *model, f"train.distributed={kind}")
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    assert_same_curve(train_on(world, recipe, tmp_path / "ranks"), alone)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("ddp", 2, 1),
        ("fsdp", 2, 1),
        pytest.param("fsdp", 1, 2, marks=pytest.mark.slow),
        pytest.param("ddp", 2, 4, marks=pytest.mark.slow),
        pytest.param("fsdp", 2, 4, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_resumes_on_another_number_of_ranks(tmp_path, kind, before, after):
    settings = [f"train.distributed={kind}", "schedule.kind=constant", "evaluate.every=3"]
    recipe = tiny_recipe(tmp_path, *settings)
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    run = tmp_path / "run"
    train_on(before, recipe.override(["train.steps=6"]), run)
    assert_same_curve(train_on(after, recipe, run, resume=True), alone)


def test_sigterm_to_one_rank_saves_a_checkpoint_on_all_and_the_run_goes_on(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path)
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    step = loop_module.Trainer._step

    def signalled(self, batch, done):
        step(self, batch, done)
        if self.position.step == 5 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop_module.Trainer, "_step", signalled)
    run = tmp_path / "run"
    statuses = wait_for(start_ranks(2, lambda rank: train(recipe, run_dir=run)))
    assert statuses == [128 + signal.SIGTERM] * 2
    assert (run / "trainer" / "step-00000005").is_dir()
    monkeypatch.undo()
    assert_same_curve(train_on(2, recipe, run, resume=True), alone)


@pytest.mark.parametrize("missing", [0, 1])
def test_ranks_wait_for_one_that_never_comes_as_long_as_the_time_out_says(tmp_path, missing, capfd):
    recipe, began = tiny_recipe(tmp_path, "train.timeout_minutes=0.05"), time.monotonic()

    def starts(rank: int) -> None:
        if rank == missing:
            os.kill(os.getpid(), signal.SIGKILL)
        train(recipe, run_dir=tmp_path / "run")

    statuses = wait_for(start_ranks(2, starts))
    # Three seconds, which the search for rank 0 may take twice, with a pause between.
    assert 2 < time.monotonic() - began < 60
    assert statuses[missing] == -signal.SIGKILL and statuses[1 - missing] == 1
    assert f"Rank {1 - missing} of 2 could not meet the others" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_rank_that_dies_ends_the_others_and_the_run_resumes(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path)
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    step = loop_module.Trainer._step

    def dies(self, batch, done):
        if self.position.step == 7 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, batch, done)

    monkeypatch.setattr(loop_module.Trainer, "_step", dies)
    run, began = tmp_path / "run", time.monotonic()
    statuses = wait_for(start_ranks(2, lambda rank: train(recipe, run_dir=run)))
    assert statuses == [1, -signal.SIGKILL] and time.monotonic() - began < 60
    monkeypatch.undo()
    assert_same_curve(train_on(2, recipe, run, resume=True), alone)
