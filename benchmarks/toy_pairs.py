"""The toy task of `encdec-tiny`: how many held-out targets are written without one wrong byte.

    bytelm train encdec-tiny --run runs/encdec-tiny
    python -m benchmarks.toy_pairs runs/encdec-tiny [runs/encdec-tiny-2 ...]

Targets are the sources backwards with upper and lower case swapped; how the pairs were drawn says
`benchmarks/fetch/make_pairs.py`. Every held-out source is the `context` of a text that is
generated: greedily, in a batch that rows leave as they end; by beam search with four beams; and by
sampling at temperature 1.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from benchmarks.common import store
from bytelm import generate, load
from bytelm.lm.generate import generate_batch
from bytelm.run import Run

PAIRS = Path(__file__).parents[1] / "data" / "pairs" / "heldout.jsonl.gz"
ROOM = 24  # bytes a target may have at most


def read() -> list[tuple[bytes, bytes]]:
    """Source and target of each held-out pair."""
    rows = [json.loads(line) for line in gzip.decompress(PAIRS.read_bytes()).splitlines()]
    return [(row["source"].encode(), row["target"].encode()) for row in rows]


def measure(runs: list[Path]) -> dict[str, Any]:
    """Share of exact matches by way of decoding, one figure per run."""
    pairs = read()
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    exact: dict[str, list[float]] = {"greedy": [], "4 beams": [], "sampling": []}
    for run in runs:
        lm = load(run)
        for name, temperature in (("greedy", 0.0), ("sampling", 1.0)):
            texts = generate_batch(
                lm, [b""] * len(pairs), context=sources, max_bytes=ROOM, temperature=temperature
            )
            exact[name].append(_share([text.data for text in texts], targets))
        texts = [generate(lm, context=source, max_bytes=ROOM, beams=4) for source in sources]
        exact["4 beams"].append(_share(texts, targets))
    seeds = [Run(run).recipe().seed for run in runs]
    return {"pairs": len(pairs), "seeds": seeds, "exact_match": exact}


def _share(found: list[bytes], targets: list[bytes]) -> float:
    return sum(text == target for text, target in zip(found, targets, strict=True)) / len(targets)


def main() -> None:
    """Measure the given runs and write benchmarks/results/toy_pairs.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="runs of models/encdec-tiny.toml")
    result = measure(parser.parse_args().runs)
    seeds = ", ".join(map(str, result["seeds"]))
    rows: list[list[object]] = [
        ["decoding", f"exact match of {result['pairs']} held-out targets, seed {seeds}"]
    ]
    for name, shares in result["exact_match"].items():
        rows.append([name, ", ".join(f"{share:.1%}" for share in shares)])
    store("toy_pairs", result, rows)


if __name__ == "__main__":
    main()
