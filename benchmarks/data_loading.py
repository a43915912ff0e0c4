"""How fast random windows come out of a memory map, beside a plain DataLoader and `datasets`.

Run: `python benchmarks/data_loading.py [--megabytes 256] [--json FILE]`. All rows read the same
bytes in one run, on one thread, in windows of 8 KiB, as int64 tensors; the figure is CPU seconds of
this process (wall time is noisy on shared cores). The plain DataLoader slices the same memory map
by `randperm` and collates; `datasets` streams a Parquet file with one window a row. The last rows
tell whether memory stays flat over an epoch with four workers.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bytelm.data import BatchStream, Corpus, Windows

LENGTH = 8192


class PlainWindows(Dataset):
    """What one writes by hand: a slice of a memory map an item."""

    def __init__(self, path: Path):
        self.data = np.memmap(path, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.data) // LENGTH

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = torch.from_numpy(self.data[i * LENGTH : (i + 1) * LENGTH].astype(np.int64))
        return torch.cat([torch.tensor([257]), row[:-1]]), row


def ours(path: Path, batch: int) -> Iterator[int]:
    """Bytes of each batch of ours."""
    for made, _ in BatchStream(Windows(Corpus.open(path), length=LENGTH), batch_windows=batch):
        yield made.raw_bytes


def plain(path: Path, batch: int) -> Iterator[int]:
    """Bytes of each batch of the plain loader."""
    for ids, _ in DataLoader(PlainWindows(path), batch_size=batch, shuffle=True):
        yield ids.numel()


def streaming(path: Path, batch: int) -> Iterator[int]:
    """Bytes of each batch of `datasets` streaming with a shuffle buffer."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    for rows in data.shuffle(seed=0, buffer_size=256).iter(batch_size=batch):
        made = torch.stack(
            [torch.frombuffer(bytearray(r), dtype=torch.uint8).long() for r in rows["window"]]
        )
        yield made.numel()


def rate(running: Iterator[int], *, count: int) -> float:
    """Megabytes per CPU second over `count` batches, after four to warm up."""
    for _ in islice(running, 4):
        pass
    start, total = time.process_time(), 0
    for size in islice(running, count):
        total += size
    return total / (time.process_time() - start) / 1e6


def resident_mb() -> float:
    """Memory this process holds that is not backed by a file, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def memory_over_an_epoch(path: Path) -> dict[str, float]:
    """Anonymous memory after 10 % and after 100 % of an epoch with four workers."""
    windows = Windows(Corpus.open(path), length=LENGTH)
    steps = windows.count // 8
    stream = iter(BatchStream(windows, batch_windows=8, num_workers=4))
    for _ in islice(stream, steps // 10):
        pass
    early = resident_mb()
    for _ in islice(stream, steps - steps // 10):
        pass
    return {"after_10_percent_mb": round(early, 1), "after_epoch_mb": round(resident_mb(), 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), megabytes=arguments.megabytes)
    for name, value in report.items():
        print(f"{name:28} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, *, megabytes: int) -> dict[str, object]:
    """All rows on the same random bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    content = np.random.default_rng(0).integers(0, 256, megabytes << 20, dtype=np.uint8)
    raw, table = folder / "bytes.bin", folder / "bytes.parquet"
    raw.write_bytes(content.tobytes())
    rows = [row.tobytes() for row in content.reshape(-1, LENGTH)]
    parquet.write_table(pa.table({"window": rows}), table, row_group_size=1000)
    report: dict[str, object] = {"window_bytes": LENGTH, "corpus_mb": megabytes}
    readers = {"ours": (ours, raw), "plain_loader": (plain, raw), "datasets": (streaming, table)}
    for batch in (8, 32):
        count = min(2000, megabytes * 100) // batch
        for name, (reader, path) in readers.items():
            running = reader(path, batch)
            report[f"{name}_{batch}_mb_s"] = round(rate(running, count=count))
    return report | memory_over_an_epoch(raw)


if __name__ == "__main__":
    main()
