"""Make `data/vowels/{train,heldout}.jsonl.gz`, the task of the recipe `mrt5-tiny`.

Run it as `python benchmarks/fetch/make_vowels.py`. The target is the source without its vowels (the
first diagnostic of Kallini et al. 2025, section 4.1, with shorter sources): what an encoder may
delete is known, five letters of 26. Sources are random, from a stated seed, and no source is in
both files.
"""

import gzip
import json
import random
import string
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"
VOWELS = "aeiou"
SHORTEST, LONGEST, TRAIN, HELDOUT, SEED = 4, 16, 20_000, 500, 0


def task(source: str) -> str:
    """The target of a source.

    >>> task("bytes")
    'byts'
    """
    return "".join(letter for letter in source if letter not in VOWELS)


def sources() -> list[str]:
    """Random strings, none of them twice."""
    rng = random.Random(SEED)
    found: dict[str, None] = {}
    while len(found) < TRAIN + HELDOUT:
        length = rng.randint(SHORTEST, LONGEST)
        found["".join(rng.choice(string.ascii_lowercase) for _ in range(length))] = None
    return list(found)


def main() -> None:
    """Write both files."""
    every = sources()
    (DATA / "vowels").mkdir(parents=True, exist_ok=True)
    for name, part in (("train", every[:TRAIN]), ("heldout", every[TRAIN:])):
        rows = [json.dumps({"source": s, "target": task(s)}) for s in part]
        content = gzip.compress("".join(row + "\n" for row in rows).encode(), 9, mtime=0)
        (DATA / "vowels" / f"{name}.jsonl.gz").write_bytes(content)
        print(f"{name}.jsonl.gz: {len(part)} pairs, {len(content)} B")


if __name__ == "__main__":
    main()
