"""What pays at small compute: layouts and boundary rules of H-Net beside flat models, one thread.

    python -m benchmarks.hnet_study run [--plan FILE] [--rows FILE] [--runs DIR]
    python -m benchmarks.hnet_study rates      # CPU seconds of a step, for a quiet machine: minutes
    python -m benchmarks.hnet_study table      # results/hnet_study.md, .json and .png of the rows

A plan is a JSON list of runs, {"name", "recipe", "bytes", "seed", "overrides"}; they are trained
one after another, each for its number of bytes, so what a run reaches does not depend on what else
the machine does. Each finished run is one line of --rows (its held-out curve included), written as
it comes; runs that have a line are not repeated. CPU seconds of a run are those of its training
steps, by this process's clock, and count the machine's other work in: `rates` measures anew.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import bytelm
from benchmarks.common import RESULTS, store
from bytelm.arch.base import ByteModel
from bytelm.memory import keep_freed_memory
from bytelm.recipe import Recipe
from bytelm.training import build
from bytelm.training.build import build_model, build_objective, open_corpora
from bytelm.training.data import TrainingData
from bytelm.training.distributed import Ranks
from bytelm.training.metrics import read_metrics
from bytelm.training.optimizer import Optimizers
from bytelm.training.step import forward_backward

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


def step_rate(entry: dict[str, Any], *, steps: int = 8) -> dict[str, float]:
    """CPU seconds of one training step (forward and backward, optimizer) and kB per CPU second; the
    lower third of `steps` after the first two."""
    recipe = recipe_of(entry)
    corpora = open_corpora(recipe)
    objective = build_objective(recipe, corpora)
    data = TrainingData(
        corpora, objective, data=recipe.data, train=recipe.train, seed=0, rank=0, world=1
    )
    model, ranks = build_model(recipe, objective), Ranks(torch.device("cpu"))
    optimizers = Optimizers(model, recipe.optimizer, muon_dtype=torch.bfloat16)
    batches, passes, updates = data.batches(), [], []
    for _ in range(steps + 2):
        batch, _ = next(batches)
        began = time.process_time()
        forward_backward(model, batch, objective=objective, parts=1, dtype="bfloat16", ranks=ranks)
        between = time.process_time()
        optimizers.step(0.1)
        passes.append(between - began)
        updates.append(time.process_time() - between)
    passes, updates = sorted(passes[2:]), sorted(updates[2:])
    third = len(passes) // 3
    whole = passes[third] + updates[third]
    return {
        "pass_seconds": round(passes[third], 4),
        "optimizer_seconds": round(updates[third], 4),
        "kB_per_cpu_second": round(recipe.train.batch_bytes / whole / 1000, 2),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_table(rows: list[dict[str, Any]], rates: dict[str, dict[str, float]]) -> None:
    """The results beside each other, and their curves."""
    header = ["run", "seed", "bytes", "steps", "operations", "kB per CPU s", "bytes per chunk"]
    table: list[list[object]] = [[*header, "bits/byte at a quarter, half, the end"]]
    for row in rows:
        rate = rates.get(row["name"], {}).get("kB_per_cpu_second", "")
        chunk = ", ".join(f"{length:.2f}" for length in row["last_chunk_bytes"].values())
        points = [row["curve"][0][2], row["curve"][len(row["curve"]) // 2 - 1][2]]
        figures = ", ".join(f"{b:.3f}" for b in points)
        table.append(
            [row["name"], row["seed"], f"{row['bytes']:,}", row["steps"]]
            + [f"{row['operations']:.2e}", rate, chunk]
            + [f"{figures}, **{row['bits_per_byte']:.3f}**"]
        )
    store("hnet_study", {"runs": rows, "rates": rates}, table)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    for row in rows:
        axes.plot(
            [point[0] / 1000 for point in row["curve"]],
            [point[2] for point in row["curve"]],
            marker=".",
            label=f"{row['name']}, seed {row['seed']}",
        )
    axes.set(xlabel="kB of training text", ylabel="held-out bits per byte")
    axes.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(RESULTS / "hnet_study.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "rates", "table"))
    parser.add_argument("--plan", type=Path, default=ROOT / "benchmarks/hnet_study_plan.json")
    parser.add_argument("--rows", type=Path, default=RESULTS / "hnet_study.jsonl")
    parser.add_argument(
        "--runs", type=Path, default=Path(tempfile.gettempdir()) / "hnet-study-runs"
    )
    parser.add_argument("--most", type=int, default=10_000, help="runs, then stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    stored = RESULTS / "hnet_study.json"
    rates = json.loads(stored.read_text())["rates"] if stored.exists() else {}
    if options.command == "run":
        options.runs.mkdir(parents=True, exist_ok=True)
        for _ in range(options.most):
            if (entry := next_entry(options.plan, options.rows)) is None:
                break
            row = run(entry, options.runs)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps({k: row[k] for k in ("name", "bits_per_byte", "cpu_seconds")}))
        return
    if options.command == "rates":
        for entry in json.loads(options.plan.read_text()):
            if not entry.get("seed"):
                rates[entry["name"]] = step_rate(entry)
                print(entry["name"], rates[entry["name"]], flush=True)
    write_table(read_rows(options.rows), rates)


def next_entry(plan: Path, rows: Path) -> dict[str, Any] | None:
    """The first entry of the plan, as it is now, that has no row yet."""
    done = {(row["name"], row["seed"]) for row in read_rows(rows)}
    for entry in json.loads(plan.read_text()):
        if (entry["name"], entry.get("seed", 0)) not in done:
            return entry
    return None


if __name__ == "__main__":
    main()
