"""What loading data costs while training: its share of a step, and memory over an epoch.

Run: `python -m benchmarks.loader_share [share] [memory]`. "share" trains bundled recipes as
`bytelm train` does (the loader runs in the training process), and compares the CPU seconds of
getting a batch with those of a whole step, on one thread. "memory" reads an epoch of random bytes
with four worker processes and no model, and looks at /proc/PID/smaps_rollup of all five processes:
anonymous memory is what a process holds for itself, the proportional set (PSS) adds its part of
what is shared, mapped pages of the corpus included, which the system takes back when it needs them.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks import common
from bytelm.data import Batch, BatchStream, Corpus, Windows
from bytelm.training.build import as_recipe, build_model, build_objective, open_corpora
from bytelm.training.data import TrainingData
from bytelm.training.distributed import Ranks
from bytelm.training.optimizer import Optimizers
from bytelm.training.step import forward_backward

RECIPES = ("hnet-tiny", "transformer-tiny")
WORKERS = 4
LENGTH = 8192


def share_of_a_step(name: str, *, steps: int, dtype: str) -> dict[str, object]:
    """CPU milliseconds of a step of a recipe and of getting its batch, after three to warm up."""
    recipe = as_recipe(name)
    corpora = open_corpora(recipe)
    objective = build_objective(recipe, corpora)
    settings = {"data": recipe.data, "train": recipe.train, "seed": recipe.seed}
    batches = TrainingData(corpora, objective, **settings).batches()
    model = build_model(recipe, objective).train()
    optimizers = Optimizers(model, recipe.optimizer, muon_dtype=torch.bfloat16)
    ranks, loading, whole = Ranks(torch.device("cpu")), 0.0, 0.0
    for step in range(steps + 3):
        began = time.process_time()
        batch, _ = next(batches)
        loaded = time.process_time()
        forward_backward(
            model,
            batch,
            objective=objective,
            parts=recipe.train.accumulate,
            dtype=dtype,
            ranks=ranks,
        )
        optimizers.step(1.0)
        if step >= 3:
            loading += loaded - began
            whole += time.process_time() - began
    return {
        "recipe": name,
        "dtype": dtype,
        "batch_bytes": recipe.train.batch_bytes,
        "load_ms": 1e3 * loading / steps,
        "step_ms": 1e3 * whole / steps,
        "percent": 100 * loading / whole,
    }


def memory_over_an_epoch(path: Path, *, rows: int = 32) -> list[dict[str, float]]:
    """Memory of the main process and of the largest worker at moments of one epoch."""
    windows = Windows(Corpus.open(path), length=LENGTH)
    steps = windows.count // rows
    stream = iter(BatchStream(windows, batch_windows=rows, num_workers=WORKERS))
    return list(_sampled(stream, at=[max(1, steps * part // 10) for part in (1, 2, 4, 6, 8, 10)]))


def _sampled(
    stream: Iterator[tuple[Batch, object]], *, at: list[int]
) -> Iterator[dict[str, float]]:
    done = 0
    for goal in at:
        for _ in islice(stream, goal - done):
            pass
        done = goal
        workers = [_memory(child.pid or 0) for child in multiprocessing.active_children()]
        assert len(workers) == WORKERS
        main = _memory(os.getpid())
        yield {
            "epoch_percent": 100 * goal / at[-1],
            "main_anonymous_mb": main["Anonymous"],
            "worker_anonymous_mb": max(worker["Anonymous"] for worker in workers),
            "all_pss_mb": sum(process["Pss"] for process in (main, *workers)),
        }


def _memory(pid: int) -> dict[str, float]:
    """MiB by kind of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(kib) / 1024 for name, kib, _ in fields}


def measure_share(*, steps: int) -> None:
    """Store loader_share."""
    rows = [share_of_a_step(name, steps=steps, dtype="bfloat16") for name in RECIPES]
    table: list[list[object]] = [["recipe", "CPU ms per step", "of it the loader", "share"]]
    table += [
        [r["recipe"], f"{r['step_ms']:.0f}", f"{r['load_ms']:.2f}", f"{r['percent']:.2f} %"]
        for r in rows
    ]
    common.store("loader_share", {"steps": steps, "rows": rows}, table)


def measure_memory(*, megabytes: int) -> None:
    """Store loader_memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes"
        random = np.random.default_rng(0)
        with path.open("wb") as stream:
            for _ in range(megabytes):
                stream.write(random.bytes(1 << 20))
        rows = memory_over_an_epoch(path)
    names = list(rows[0])
    table: list[list[object]] = [[name.replace("_", " ") for name in names]]
    table += [[f"{row[name]:.0f}" for name in names] for row in rows]
    common.store("loader_memory", {"megabytes": megabytes, "rows": rows}, table)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["share", "memory"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--megabytes", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "share" in arguments.what:
        measure_share(steps=arguments.steps)
    if "memory" in arguments.what:
        measure_memory(megabytes=arguments.megabytes)


if __name__ == "__main__":
    main()
