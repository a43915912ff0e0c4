"""What pays at small compute: layouts and boundary rules of H-Net beside flat models, one thread.

    python -m benchmarks.hnet_study run PLAN.json [--rows FILE] [--runs DIR]

A plan is a JSON list of runs, {"name", "recipe", "bytes", "seed", "overrides"}; they are trained
one after another, each for its number of bytes, so what a run reaches does not depend on what else
the machine does. Each finished run is one line of --rows (its held-out curve included), written as
it comes; runs that have a line are not repeated. CPU seconds are those of training steps alone,
timed by this process's clock: rates that are to be compared come from a quiet machine.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import bytelm
from bytelm.arch.base import ByteModel
from bytelm.recipe import Recipe
from bytelm.training import build
from bytelm.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
FIXED = (  # of every run
    "train.clock=cpu",
    "train.threads=1",
    "train.dtype=bfloat16",
    "train.checkpoint_every=0",
    "log.every=1",
    "evaluate.bytes=65536",
)


def recipe_of(entry: dict[str, Any]) -> Recipe:
    """The recipe of an entry of a plan, its bytes turned into steps, ten figures along the way."""
    recipe = Recipe.load(entry["recipe"], overrides=[*FIXED, *entry.get("overrides", ())])
    steps = round(entry["bytes"] / (recipe.train.batch_windows * recipe.train.context_bytes))
    every = max(1, steps // entry.get("figures", 4))
    final = "true" if entry.get("final") else "false"
    return recipe.override(
        [
            f"seed={entry.get('seed', 0)}",
            f"train.steps={steps}",
            f"evaluate.every={every}",
            f"evaluate.final={final}",
        ]
    )


def run(entry: dict[str, Any], runs: Path) -> dict[str, Any]:
    """Train one entry; -> its row."""
    recipe = recipe_of(entry)
    path = runs / f"{entry['name']}-seed{recipe.seed}"
    bytelm.train(recipe, run_dir=path, resume=path.exists())
    return row_of(entry, recipe, path)


def row_of(entry: dict[str, Any], recipe: Recipe, path: Path) -> dict[str, Any]:
    """Figures of a finished run."""
    rows = list(read_metrics(path / "metrics.jsonl"))
    steps = [r for r in rows if "loss" in r]
    held = {r["step"]: r["heldout_bits_per_byte"] for r in rows if "heldout_bits_per_byte" in r}
    seconds = step_seconds(steps, set(held))
    spent, curve = 0.0, []
    for r, s in zip(steps, seconds, strict=True):
        spent += s
        if r["step"] in held:
            curve.append([r["bytes_seen"], round(spent, 2), round(held[r["step"]], 4)])
    model = build(recipe)
    chunks = {
        k: round(statistics.mean(r[k] for r in steps), 3) for k in steps[-1] if "chunk_bytes" in k
    }
    last = {k: round(statistics.mean(r[k] for r in steps[-20:]), 3) for k in chunks}
    return {
        **entry,
        "seed": recipe.seed,
        "steps": len(steps),
        "batch_bytes": recipe.train.batch_bytes,
        "bytes": steps[-1]["bytes_seen"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "operations": operations(model, recipe, chunks) * steps[-1]["bytes_seen"],
        "cpu_seconds": round(spent, 2),
        "bits_per_byte": round(curve[-1][2], 4),
        "chunk_bytes": chunks,
        "last_chunk_bytes": last,
        "curve": curve,
    }


def step_seconds(steps: list[dict[str, float]], evaluated: set[int]) -> list[float]:
    """CPU seconds of each step. The clock also ran during evaluations, so a step that follows one
    counts as the median of its neighbours."""
    clock = [0.0, *(r["cpu_seconds"] for r in steps)]
    raw = [b - a for a, b in zip(clock, clock[1:], strict=False)]
    out = []
    for i, s in enumerate(raw):
        if i == 0 or steps[i]["step"] - 1 in evaluated:
            s = statistics.median(raw[max(0, i - 4) : i] + raw[i + 1 : i + 5])
        out.append(s)
    return out


def operations(model: ByteModel, recipe: Recipe, chunks: dict[str, float]) -> float:
    """Floating-point operations of training per byte, at the chunk lengths that were measured:
    three forward passes; the optimizer's are left out."""
    config = model.config
    if chunks:
        lengths = tuple(max(1.001, chunks[f"stage{s}/chunk_bytes"]) for s in range(len(chunks)))
        model.config = config.model_copy(update={"target": lengths})  # type: ignore[assignment]
    found = 3 * model.flops_per_byte(recipe.train.context_bytes)
    model.config = config
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run")
    command.add_argument("plan", type=Path)
    command.add_argument("--rows", type=Path, default=ROOT / "benchmarks/results/hnet_study.jsonl")
    command.add_argument(
        "--runs", type=Path, default=Path(tempfile.gettempdir()) / "hnet-study-runs"
    )
    command.add_argument("--most", type=int, default=10_000, help="runs, then stop")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for _ in range(options.most):
        if (entry := next_entry(options.plan, options.rows)) is None:
            break
        row = run(entry, options.runs)
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({k: row[k] for k in ("name", "bits_per_byte", "cpu_seconds")}), flush=True)


def next_entry(plan: Path, rows: Path) -> dict[str, Any] | None:
    """The first entry of the plan, as it is now, that has no row yet."""
    lines = rows.read_text().splitlines() if rows.exists() else []
    done = {(r["name"], r["seed"]) for r in map(json.loads, lines)}
    for entry in json.loads(plan.read_text()):
        if (entry["name"], entry.get("seed", 0)) not in done:
            return entry
    return None


if __name__ == "__main__":
    main()
