"""The task of `mrt5-tiny`: exact matches, and whether what is deleted is what may be deleted.

    bytelm train mrt5-tiny --run runs/mrt5-tiny
    python -m benchmarks.vowels runs/mrt5-tiny [runs/mrt5-tiny-2 ...]

Targets are the sources without their vowels (`benchmarks/fetch/make_vowels.py`), so the right thing
to delete is known. Every held-out source is the `context` of a text that is generated: greedily, in
a batch that rows leave as they end; and by beam search with four beams. Deletion is hard.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from benchmarks.common import store
from benchmarks.fetch.make_vowels import VOWELS
from bytelm import generate, load
from bytelm.lm.generate import generate_batch
from bytelm.lm.seq2seq import Seq2SeqLM
from bytelm.run import Run
from bytelm.training.metrics import read_metrics

PAIRS = Path(__file__).parents[1] / "data" / "vowels" / "heldout.jsonl.gz"
ROOM, BEAMED = 24, 100  # bytes a target may have at most; sources that are searched with beams


def read() -> list[tuple[bytes, bytes]]:
    """Source and target of each held-out pair."""
    rows = [json.loads(line) for line in gzip.decompress(PAIRS.read_bytes()).splitlines()]
    return [(row["source"].encode(), row["target"].encode()) for row in rows]


def measure(run: Path) -> dict[str, Any]:
    """Figures of one run: seed, CPU seconds of its training, exact matches, deletion, and how both
    went along training."""
    pairs, lm = read(), load(run)
    assert isinstance(lm, Seq2SeqLM), f"{run} reads no source"
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    greedy = generate_batch(
        lm, [b""] * len(pairs), context=sources, max_bytes=ROOM, temperature=0.0
    )
    beams = [generate(lm, context=source, max_bytes=ROOM, beams=4) for source in sources[:BEAMED]]
    deleted = vowels = both = size = 0
    for source in sources:
        for byte, gone in zip(source, lm.deleted_bytes(source), strict=True):
            size, deleted, vowels = size + 1, deleted + gone, vowels + (chr(byte) in VOWELS)
            both += gone and chr(byte) in VOWELS
    rows = list(read_metrics(Run(run).metrics))
    curve = [
        [row["step"], row["heldout_exact_match"]] for row in rows if "heldout_exact_match" in row
    ]
    rates = [[row["step"], row["deleted"]] for row in rows if "deleted" in row][::25]
    return {
        "seed": Run(run).recipe().seed,
        "cpu_seconds": max(row.get("cpu_seconds", 0.0) for row in rows),
        "greedy": share([text.data for text in greedy], targets),
        "beams": share(beams, targets[:BEAMED]),
        "deleted": deleted / size,
        "vowels": vowels / size,
        "deleted_that_are_vowels": both / max(deleted, 1),
        "vowels_that_are_deleted": both / vowels,
        "exact_match_by_step": curve,
        "deleted_by_step": rates,
    }


def share(found: list[bytes], targets: list[bytes]) -> float:
    """Of texts that are their targets."""
    return sum(text == target for text, target in zip(found, targets, strict=True)) / len(targets)


def main() -> None:
    """Measure the given runs and write benchmarks/results/vowels.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="runs of models/mrt5-tiny.toml")
    runs = [measure(run) for run in parser.parse_args().runs]
    names = ["seed", "cpu_seconds", "greedy", "beams", "deleted", "vowels"]
    names += ["deleted_that_are_vowels", "vowels_that_are_deleted"]
    table: list[list[object]] = [[name.replace("_", " ") for name in names]]
    table += [[f"{run[name]:.4g}" for name in names] for run in runs]
    store("vowels", {"pairs": len(read()), "runs": runs}, table)


if __name__ == "__main__":
    main()
