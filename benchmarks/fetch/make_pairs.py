"""Make `data/pairs/{train,heldout}.jsonl.gz`, the toy task of the recipe `encdec-tiny`.

Run it as `python benchmarks/fetch/make_pairs.py`. The target is the source backwards with upper and
lower case swapped: a bijection, so a model either has it or has not, and one in which every byte of
the target depends on one far away in the source. Sources are random, from a stated seed, and no
source is in both files.
"""

import gzip
import json
import random
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "
LONGEST, TRAIN, HELDOUT, SEED = 16, 6000, 500, 0


def task(source: str) -> str:
    """The target of a source.

    >>> task("Ab c")
    'C Ba'
    """
    return source[::-1].swapcase()


def sources() -> list[str]:
    """Distinct random strings of 1 to `LONGEST` characters."""
    rng = random.Random(SEED)
    found: dict[str, None] = {}
    while len(found) < TRAIN + HELDOUT:
        length = rng.randint(1, LONGEST)
        found["".join(rng.choice(ALPHABET) for _ in range(length))] = None
    every = list(found)
    rng.shuffle(every)
    return every


def main() -> None:
    """Write both files."""
    every = sources()
    (DATA / "pairs").mkdir(parents=True, exist_ok=True)
    for name, part in (("train", every[HELDOUT:]), ("heldout", every[:HELDOUT])):
        rows = [json.dumps({"source": s, "target": task(s)}) for s in part]
        content = gzip.compress("".join(row + "\n" for row in rows).encode(), 9, mtime=0)
        (DATA / "pairs" / f"{name}.jsonl.gz").write_bytes(content)
        print(f"{name}.jsonl.gz: {len(part)} pairs, {len(content)} B")


if __name__ == "__main__":
    main()
