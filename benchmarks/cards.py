"""Write a recipe's card, models/NAME.md, from finished runs of it.

    python -m benchmarks.cards hnet-tiny runs/hnet-tiny runs/hnet-tiny-2 ...

Each run must be one of the recipe (its own recipe.toml is compared, apart from the seed). The card
holds the held-out bits per byte of every seed beside gzip, xz and ppmd on the same bytes, cold and
primed with the training text, which is the honest rival.
"""

import argparse
import json
import statistics
from pathlib import Path

from benchmarks.common import machine
from bytelm.evaluate.compressors import compressed_bits_per_byte, primed_bits_per_byte
from bytelm.recipe import Recipe
from bytelm.training import build

ROOT = Path(__file__).parents[1]


def read_run(run: Path, recipe: Recipe) -> dict[str, float]:
    """Seed, held-out bits per byte (overlapping windows), bytes seen and minutes of one run."""
    own = Recipe.load(run / "recipe.toml")
    kept = {"name": recipe.name, "seed": recipe.seed}
    if own.model_copy(update=kept) != recipe:
        raise SystemExit(f"{run} was not trained with the recipe {recipe.name} as it stands")
    result = json.loads((run / "evaluation.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [r for r in rows if "loss" in r][-1]
    return {
        "seed": own.seed,
        "bits": result["bits_per_byte"],
        "window": result["window"],
        "stride": result["stride"],
        "megabytes": last["bytes_seen"] / 1e6,
        "minutes": last["seconds"] / 60,
        "chunk": last.get("stage0/chunk_bytes", 1.0),
    }


def card(name: str, runs: list[Path]) -> str:
    """The card's Markdown."""
    recipe = Recipe.load(ROOT / "models" / f"{name}.toml")
    found = [read_run(run, recipe) for run in runs]
    parameters = sum(p.numel() for p in build(recipe).parameters())
    heldout, training = (
        b"".join((ROOT / p).read_bytes() for p in paths)
        for paths in (recipe.data.heldout, recipe.data.train)
    )
    cold, primed = compressed_bits_per_byte(heldout), primed_bits_per_byte(heldout, training)
    best = statistics.mean(r["bits"] for r in found)
    about = (ROOT / "models" / f"{name}.toml").read_text().splitlines()[0].removeprefix("# ")
    rows = [
        f"| {name}, seed {r['seed']:.0f} | **{r['bits']:.3f}** | {r['megabytes']:.1f} MB in "
        f"{r['minutes']:.1f} min, {r['chunk']:.2f} bytes a chunk |"
        for r in found
    ]
    rows += [f"| {rival} | {bits:.3f} | cold |" for rival, bits in cold.items()]
    rows += [
        f"| {rival} | {bits:.3f} | primed with the training text |"
        for rival, bits in primed.items()
    ]
    on = machine()
    gap = best - primed["ppmd"]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{about} {parameters:,} parameters.",
            "",
            f"Held-out bits per byte of {len(heldout):,} bytes ({', '.join(recipe.data.heldout)}), "
            f"windows of {found[0]['window']:,} bytes with stride {found[0]['stride']:,}:",
            "",
            "| | bits/byte | |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Against ppmd primed with the same training text, the honest rival: {gap:+.3f} "
            "bits per byte.",
            "",
            f"Command: `python train.py {name} seed=S`, then `python -m benchmarks.cards {name} "
            f"RUN...`. Machine: {on['cpu']}, {on['cores']} cores, torch {on['torch']}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    text = card(options.name, options.runs)
    (ROOT / "models" / f"{options.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
