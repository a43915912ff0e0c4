"""Ranks killed at random times, over and over: no checkpoint lost, no hang, the exact same run.

    python -m pytest -m slow tests/training/test_kills.py

Each trial resumes the run on two ranks, lets it make a random amount of progress and sends SIGTERM
or SIGKILL to one of them. In the end the run must equal, bit for bit, one that was never touched.
"""

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from bytelm.training import train
from bytelm.training.checkpoint import latest_checkpoint, read_position
from bytelm.training.metrics import read_metrics
from tests.training.runs import outcome, tiny_recipe
from tests.training.test_distributed import start_ranks, train_on

TRIALS = 20
TIMEOUT = 0.5  # minutes
# Seconds until two ranks must have ended, or made some progress. Without torchrun, which would end
# it, a rank whose rank 0 never came up waits for the time-out, pauses, and tries once more.
PATIENCE = 200.0


def last_step(run: Path) -> int:
    """The step of the last row of metrics."""
    rows = list(read_metrics(run / "metrics.jsonl"))
    return rows[-1]["step"] if rows else 0


def identity(file: Path) -> int | None:
    return file.stat().st_ino if file.exists() else None


def wait_for_progress(run: Path, *, opened: int | None, step: int, children: list[int]) -> None:
    """Until the run has opened its metrics anew and reached `step`, or a rank has ended."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + PATIENCE
    while identity(metrics) == opened or last_step(run) < step:
        if any(os.waitid(os.P_PID, c, os.WEXITED | os.WNOHANG | os.WNOWAIT) for c in children):
            return
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.01)


def statuses_within(children: list[int], seconds: float) -> list[int]:
    """Exit statuses; fails, and kills what is left, if it takes longer."""
    deadline, statuses = time.monotonic() + seconds, {}
    while len(statuses) < len(children) and time.monotonic() < deadline:
        for child in set(children) - set(statuses):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                statuses[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in set(children) - set(statuses):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(statuses) == len(children), f"ranks hung for {seconds} s"
    return [statuses[child] for child in children]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_killing_a_rank_at_random_times_loses_nothing(tmp_path, kind):
    settings = [f"train.distributed={kind}", "train.steps=100", f"train.timeout_minutes={TIMEOUT}"]
    recipe = tiny_recipe(tmp_path, *settings)
    train_on(2, recipe, tmp_path / "whole")
    random, run, saved, stopped = Random(3), tmp_path / "run", 0, 0
    for trial in range(TRIALS):
        opened = identity(run / "metrics.jsonl")
        children = start_ranks(2, lambda rank: train(recipe, run_dir=run, resume=True))
        if (more := random.randrange(7)) > 0:
            goal = saved + more
            wait_for_progress(run, opened=opened, step=goal, children=children)
        time.sleep(random.uniform(0, 0.05 if more else 2.0))
        number = (signal.SIGTERM, signal.SIGKILL)[trial % 2]
        os.kill(random.choice(children), number)
        statuses = statuses_within(children, PATIENCE)
        checkpoint = latest_checkpoint(run / "trainer")
        step = read_position(checkpoint).step if checkpoint else 0  # its hashes are right
        assert step >= saved, f"trial {trial}: went back from step {saved} to {step}"
        if statuses == [128 + signal.SIGTERM] * 2:
            assert step == last_step(run), f"trial {trial}: SIGTERM lost a step"
            stopped += 1
        saved = step
    assert stopped >= TRIALS // 4 and 0 < saved < 100  # the trials did what they are for
    train_on(2, recipe, run, resume=True)
    assert outcome(run) == outcome(tmp_path / "whole")
