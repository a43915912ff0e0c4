"""`bytelm train` and `bytelm models` as a user meets them: streams, exit codes, closing report."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bytelm.cli.app import app
from bytelm.training.checkpoint import latest_checkpoint, read_position
from bytelm.training.metrics import read_metrics
from tests.training.runs import tiny_recipe
from tests.training.test_distributed import HNET

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", [HNET, []], ids=["hnet", "transformer"])
def test_train_reports_and_ends_with_the_run_directory(tmp_path, model):
    (tmp_path / "tiny.toml").write_text(tiny_recipe(tmp_path, *model).to_toml())
    run = tmp_path / "run"
    arguments = ["train", f"{tmp_path}/tiny.toml", "train.steps=4", "--run", str(run)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == str(run)
    for part in ("gzip -9", "xz -9e", "a sample"):
        assert part in done.stdout
    assert ("where it cuts" in done.stdout) == bool(model)
    assert "bits/byte held out" in done.stderr and "bits/byte held out" not in done.stdout
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["bytes"] == 300 and 7 < stored["bits_per_byte"] < 9 and stored["xz"] > 0


def test_train_py_exits_with_2_and_one_paragraph_on_a_users_mistake():
    command = [sys.executable, str(ROOT / "train.py"), "no-such-recipe"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: unknown recipe 'no-such-recipe'")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_torchrun_starts_the_same_command_and_its_sigterm_saves_a_checkpoint(tmp_path):
    """docs/scaling.md: torchrun with --run, SIGTERM to torchrun, and resuming on one process."""
    (tmp_path / "tiny.toml").write_text(tiny_recipe(tmp_path, "train.steps=100000").to_toml())
    run = tmp_path / "run"
    command = [str(ROOT / "train.py"), f"{tmp_path}/tiny.toml", "--run", str(run)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--"]
    started = subprocess.Popen([sys.executable, *torchrun, *command], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while not (run / "trainer" / "step-00000003").is_dir():
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        started.terminate()
        assert started.wait(60) == 1
    finally:
        started.kill()
    checkpoint = latest_checkpoint(run / "trainer")
    step = read_position(checkpoint).step
    assert step == list(read_metrics(run / "metrics.jsonl"))[-1]["step"]
    alone = [sys.executable, *command, "--resume", f"train.steps={step + 1}"]
    assert subprocess.run(alone, capture_output=True).returncode == 0
    assert (run / "trainer" / f"step-{step + 1:08}").is_dir()


def test_models_lists_every_recipe_with_its_size(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["models", "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert {"hnet", "transformer"} <= set(listed["architectures"])
    names = {file.stem for file in (ROOT / "models").glob("*.toml")}
    assert {row["name"] for row in listed["recipes"]} == names
    for row in listed["recipes"]:
        (flops,) = (value for key, value in row.items() if key.startswith("flops_per_"))
        assert row["parameters"] > 1e5 and flops > 1e5
