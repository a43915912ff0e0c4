"""Byte architectures at equal compute: bits per byte after the same CPU seconds on one thread.

    python -m benchmarks.equal_compute [--seconds 75] [--seeds 3] [--models A,B] [--runs DIR]

Every model trains on the bundled prose with the settings of its recipe (same optimizer, batch,
context and n-gram tables) until this process's CPU clock says stop; then all held-out bytes are
scored in the training's windows. Finished runs are kept under --runs and not repeated; the result
is written after each seed. Cards are written from runs of 75 seconds, other budgets have results of
their own (equal_compute_200).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import store

ROOT = Path(__file__).parents[1]
CARD = (
    "\n\nSide by side with the other architectures, and gzip 2.689, xz -9e 2.251, ppmd 1.785 "
    "(`bytelm eval`, same bytes): "
    "[benchmarks/results/equal_compute.md](../benchmarks/results/equal_compute.md).\n\n"
    "Command: `python -m benchmarks.equal_compute`."
)
CARD_SECONDS = 75.0
# The recipe without its train.bytes: then the learning rate falls, and a taught router is let go,
# by the share of the CPU seconds that is gone.
BY_THE_CLOCK = """
import sys, bytelm
from bytelm.recipe import Recipe
recipe = Recipe.load(sys.argv[1], overrides=sys.argv[3:])
train = recipe.train.model_copy(update={"bytes": None, "steps": None})
bytelm.train(recipe.model_copy(update={"train": train}), run_dir=sys.argv[2])
"""
OWN_CARD = ("hnet-tiny",)  # its card comes from full runs: benchmarks.cards
RECIPES = {
    "flat Transformer": "transformer-tiny",
    "windowed Transformer (128)": "transformer-window-tiny",
    "MambaByte": "mambabyte-tiny",
    "H-Net, learned": "hnet-tiny",
    "H-Net, space": "hnet-space-tiny",
    "H-Net, fixed 6": "hnet-fixed-tiny",
}


def train(
    recipe: str,
    seed: int,
    seconds: float,
    runs: Path,
    *,
    name: str | None = None,
    more: Sequence[str] = (),
    read: Callable[[Path, float], dict[str, float]] | None = None,
) -> dict[str, float]:
    """One run in a process of its own, called `name` and with `more` overrides; -> its figures, as
    `read` (by default `figures`) finds them in the run after that many seconds."""
    run = runs / f"{name or recipe}-{seconds:g}s-seed{seed}"
    done = run / "equal_compute.json"
    if not done.exists():
        overrides = [
            f"seed={seed}",
            f"train.max_minutes={seconds / 60}",
            "train.clock=cpu",
            "train.threads=1",
            "train.dtype=bfloat16",
            "train.checkpoint_every=0",
            "evaluate.every=1000000000",  # only at the end, over all held-out bytes
            "evaluate.bytes=1000000000",
            *more,
        ]
        command = [sys.executable, "-c", BY_THE_CLOCK, recipe, str(run), *overrides]
        subprocess.run(command, check=True, cwd=ROOT)
        done.write_text(json.dumps((read or figures)(run, seconds)))
    return json.loads(done.read_text())


def figures(run: Path, seconds: float) -> dict[str, float]:
    """Held-out bits per byte, training bytes per CPU second, mean chunk length of the last rows."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = [r for r in rows if "loss" in r]
    tail = training[-max(1, len(training) // 5) :]
    found = {
        "bits_per_byte": next(r for r in rows[::-1] if "heldout_bits_per_byte" in r)[
            "heldout_bits_per_byte"
        ],
        "bytes_per_second": training[-1]["bytes_seen"] / seconds,
    }
    if "stage0/chunk_bytes" in training[-1]:
        found["chunk_bytes"] = statistics.mean(r["stage0/chunk_bytes"] for r in tail)
    return found


def write_card(
    recipe: str,
    seconds: float,
    results: list[dict[str, float]],
    *,
    heldout: str,
    trained: str = "",
    more: str,
) -> None:
    """models/RECIPE.md: what the recipe is and what it reached here. trained: on which data, if not
    the recipe's own; more: all that follows that sentence."""
    about = (ROOT / "models" / f"{recipe}.toml").read_text().splitlines()[0].removeprefix("# ")
    bits = ", ".join(f"{r['bits_per_byte']:.3f}" for r in results)
    speed = statistics.mean(r["bytes_per_second"] for r in results) / 1000
    which = "seed 0" if len(results) == 1 else f"seeds 0 to {len(results) - 1}"
    (ROOT / "models" / f"{recipe}.md").write_text(
        f"# {recipe}\n\n{about}\n\n"
        f"After {seconds:g} CPU seconds on one thread ({which}){trained}: "
        f"**{bits}** bits per byte of {heldout} in windows that do not overlap, at "
        f"{speed:.1f} kB per CPU second.{more}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=CARD_SECONDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "equal-compute")
    parser.add_argument("--models", default=",".join(RECIPES.values()), help="recipes")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    chosen = options.models.split(",")
    if unknown := set(chosen) - set(RECIPES.values()):
        parser.error(f"no such recipes here: {', '.join(unknown)}; {', '.join(RECIPES.values())}")
    recipes = {name: recipe for name, recipe in RECIPES.items() if recipe in chosen}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    for seed in range(options.seeds):  # seeds outermost: drift of the machine hits all alike
        for name, recipe in recipes.items():
            found[name].append(train(recipe, seed, options.seconds, options.runs))
        write(found, recipes, options.seconds)


def write(
    found: dict[str, list[dict[str, float]]], recipes: dict[str, str], seconds: float
) -> None:
    """The result, its table and, for the usual budget, the cards."""
    table: list[list[object]] = [
        ["model", "bits/byte (seeds)", "kB per CPU second", "bytes per chunk"]
    ]
    for name, results in found.items():
        bits = [r["bits_per_byte"] for r in results]
        spread = ", ".join(f"{b:.3f}" for b in bits)
        speed = statistics.mean(r["bytes_per_second"] for r in results) / 1000
        chunks = [r["chunk_bytes"] for r in results if "chunk_bytes" in r]
        length = f"{statistics.mean(chunks):.2f}" if chunks else "1"
        if recipes[name] not in OWN_CARD and seconds == CARD_SECONDS:
            recipe, heldout = recipes[name], "data/prose/heldout.txt"
            write_card(recipe, seconds, results, heldout=heldout, more=CARD)
        table.append([name, f"**{statistics.mean(bits):.3f}** ({spread})", f"{speed:.1f}", length])
    name = "equal_compute" + (f"_{seconds:g}" if seconds != CARD_SECONDS else "")
    store(name, {"seconds": seconds, "runs": found}, table)


if __name__ == "__main__":
    main()
