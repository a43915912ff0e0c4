"""Several ranks (gloo) train what one process trains, and checkpoints move between their numbers."""

import os
import socket
import traceback
from pathlib import Path

import pytest

from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe

HNET = [
    "model.arch=hnet",
    'model.layout=["m1", ["T1"], "m1"]',
    "model.d_model=[16, 32]",
    "model.d_intermediate=[0, 32]",
    "model.num_heads=[2, 2]",
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
    """fp32 sums in another order: equal to 2e-4 (gradients of a step at most 1e-6 apart, times 12 Muon steps)."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            assert row[key] == pytest.approx(other[key], rel=2e-4, abs=1e-5), (row["step"], key)


@pytest.mark.parametrize("model", [[], HNET], ids=["transformer", "hnet"])
@pytest.mark.parametrize(("kind", "world"), [("ddp", 2), ("fsdp", 2), ("ddp", 4), ("fsdp", 4)])
def test_ranks_give_the_loss_curve_of_one_process(tmp_path, kind, world, model):
    recipe = tiny_recipe(tmp_path, *model, f"train.distributed={kind}")
    alone = outcome(train(recipe, run_dir=tmp_path / "alone"))[0]
    assert_same_curve(train_on(world, recipe, tmp_path / "ranks"), alone)
