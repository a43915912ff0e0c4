"""Binary BPE on one thread and on all cores: wall time of training, encoding and decoding.

    python -m benchmarks.bpe_threads FOLDER [--mib 400] [--vocabulary 65536]

For a quiet machine: wall time is the point here. Files of FOLDER are read, largest last, until
there are --mib of them; the trained vocabulary encodes an eighth of them again. Merges, ids and
bytes are compared every time. The first call of everything, which compiles, is not timed.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import store
from bytelm.threads import available_cores
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.trainer import train_merges


def read(folder: Path, size: int) -> list[bytes]:
    """Whole files, shortest first, of `size` bytes together or a little more."""
    found, total = [], 0
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in sorted(paths, key=lambda path: (path.stat().st_size, path)):
        found.append(path.read_bytes())
        total += len(found[-1])
        if total >= size:
            break
    return found


def wall(call: Callable[[], Any], *, rounds: int) -> tuple[float, Any]:
    """The shortest of `rounds`, and the result."""
    best, result = float("inf"), None
    for _ in range(rounds):
        began = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - began)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mib", type=int, default=400)
    parser.add_argument("--vocabulary", type=int, default=65536)
    options = parser.parse_args()
    documents = read(options.folder, options.mib << 20)
    held, size = [], 0
    for data in documents[::-1]:
        held.append(data)
        size += len(data)
        if size >= options.mib << 20 >> 3:
            break
    counts = (1, max(2, available_cores()))
    ids = options.vocabulary - 7
    for threads in counts:  # compiles; the small corpus takes every way there is
        train_merges([documents[-1][: 1 << 22]], ids=min(ids, 4000), threads=threads)
    seconds: dict[str, dict[int, float]] = {"train": {}, "encode": {}, "decode": {}}
    results: list[tuple[np.ndarray, list[np.ndarray]]] = []
    for threads in counts:
        spent, found = wall(partial(train_merges, documents, ids=ids, threads=threads), rounds=1)
        seconds["train"][threads] = spent
        bpe = BinaryBPE.from_merges(found.merges)
        bpe.decode(bpe.encode(b"abc"))
        spent, encoded = wall(partial(bpe.encode_batch, held, threads=threads), rounds=2)
        seconds["encode"][threads] = spent
        joined = np.concatenate(encoded)
        spent, data = wall(partial(bpe.decode, joined, threads=threads), rounds=2)
        seconds["decode"][threads] = spent
        assert data == b"".join(held)
        results.append((found.merges, encoded))
    (merges, alone), (others, together) = results
    assert np.array_equal(merges, others), "merges differ"
    assert all(map(np.array_equal, alone, together)), "ids differ"
    one, many = counts
    table: list[list[object]] = [["what", "1 thread, wall s", f"{many} threads, wall s", "ratio"]]
    for what, spent in seconds.items():
        ratio = f"{spent[one] / spent[many]:.2f}"
        table.append([what, f"{spent[one]:.2f}", f"{spent[many]:.2f}", ratio])
    sizes = {"train_bytes": sum(map(len, documents)), "encoded_bytes": sum(map(len, held))}
    store("bpe_threads", {**sizes, "vocabulary": options.vocabulary, "seconds": seconds}, table)


if __name__ == "__main__":
    main()
