"""Write a recipe's card, models/NAME.md, from finished runs of it.

    python -m benchmarks.cards hnet-tiny runs/hnet-tiny runs/hnet-tiny-2 ...

Each run must be one of the recipe (its own recipe.toml is compared, apart from the seed). The card
holds the held-out bits per byte of every seed beside gzip, xz and ppmd on the same bytes, cold and
primed with the training text, which is the fair baseline. The figures of all cards are kept in
benchmarks/results/cards.json, which a card is written from.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine
from bytelm.evaluate.compressors import compressed_bits_per_byte, primed_bits_per_byte
from bytelm.files import write_text
from bytelm.recipe import Recipe
from bytelm.run import Run
from bytelm.training import build
from bytelm.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]


def what_is_trained(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what a run arrives at, apart from its seed and rounding: not how its
    machine multiplies, how many threads it has, or how often it looks and saves."""
    settings = recipe.model_dump(exclude={"name", "seed", "evaluate", "log"})
    for name in ("dtype", "compile", "threads", "device", "clock", "max_minutes"):
        del settings["train"][name]
    for name in ("checkpoint_every", "keep_last", "timeout_minutes", "distributed"):
        del settings["train"][name]
    return settings


def read_run(path: Path, recipe: Recipe) -> dict[str, float]:
    """Seed, held-out bits per byte (overlapping windows), bytes seen and minutes of one run."""
    run = Run(path)
    own = run.recipe()
    if what_is_trained(own) != what_is_trained(recipe):
        raise SystemExit(f"{path} was not trained with the recipe {recipe.name} as it stands")
    result = json.loads(run.evaluation.read_text())
    if result.get("sampled_from") is not None:
        raise SystemExit(
            f"the closing evaluation of {path} is a random sample: measure all held-out bytes with "
            f"bytelm eval {path} {' '.join(recipe.data.heldout)} --json > {run.evaluation}"
        )
    last = [row for row in read_metrics(run.metrics) if "loss" in row][-1]
    return {
        "seed": own.seed,
        "bits_per_byte": result["bits_per_byte"],
        "window": result["window"],
        "stride": result["stride"],
        "megabytes": last["bytes_seen"] / 1e6,
        "minutes": last["seconds"] / 60,
        **({"cpu_seconds": last["cpu_seconds"]} if "cpu_seconds" in last else {}),
        "chunk_bytes": last.get("stage0/chunk_bytes", 1.0),
    }


def measure(name: str, runs: list[Path]) -> dict[str, Any]:
    """The figures of a recipe's card."""
    recipe = Recipe.load(ROOT / "models" / f"{name}.toml")
    heldout, training = (
        b"".join((ROOT / p).read_bytes() for p in paths)
        for paths in (recipe.data.heldout, recipe.data.train)
    )
    found = [read_run(run, recipe) for run in runs]
    return {
        "machine": machine(),
        "parameters": sum(p.numel() for p in build(recipe).parameters()),
        "heldout_bytes": len(heldout),
        "window": found[0].pop("window"),
        "stride": found[0].pop("stride"),
        "runs": found,
        "cold": compressed_bits_per_byte(heldout),
        "primed": primed_bits_per_byte(heldout, training),
    }


def card(name: str, result: dict[str, Any]) -> str:
    """The card's Markdown."""
    recipe = Recipe.load(ROOT / "models" / f"{name}.toml")
    best = statistics.mean(run["bits_per_byte"] for run in result["runs"])
    about = (ROOT / "models" / f"{name}.toml").read_text().splitlines()[0].removeprefix("# ")
    rows = [
        f"| {name}, seed {r['seed']:.0f} | **{r['bits_per_byte']:.3f}** | {r['megabytes']:.1f} MB "
        f"in {r['minutes']:.1f} min{_cpu(r)}, {r['chunk_bytes']:.2f} bytes per chunk |"
        for r in result["runs"]
    ]
    rows += [f"| {other} | {bits:.3f} | cold |" for other, bits in result["cold"].items()]
    rows += [
        f"| {other} | {bits:.3f} | primed with the training text |"
        for other, bits in result["primed"].items()
    ]
    on = result["machine"]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{about} {result['parameters']:,} parameters.",
            "",
            f"Held-out bits per byte of {result['heldout_bytes']:,} bytes "
            f"({', '.join(recipe.data.heldout)}), windows of {result['window']:,} bytes with "
            f"stride {result['stride']:,}:",
            "",
            "| | bits/byte | |",
            "| --- | --- | --- |",
            *rows,
            "",
            "Against ppmd primed with the same training text, the fair baseline: "
            f"{best - result['primed']['ppmd']:+.2f} bits per byte.",
            "",
            f"Command: `python train.py {name} seed=S`, then `python -m benchmarks.cards {name} "
            f"RUN...`. Machine: {on['cpu']}, {on['cores']} cores, torch {on['torch']}.",
            "",
        ]
    )


def _cpu(run: dict[str, float]) -> str:
    """What the run cost: the figure that a shared machine does not change."""
    return f" ({run['cpu_seconds']:,.0f} CPU seconds)" if "cpu_seconds" in run else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    stored = RESULTS / "cards.json"
    results = json.loads(stored.read_text()) | {options.name: measure(options.name, options.runs)}
    write_text(stored, json.dumps(results, indent=1) + "\n")
    text = card(options.name, results[options.name])
    write_text(ROOT / "models" / f"{options.name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
