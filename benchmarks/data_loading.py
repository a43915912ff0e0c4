"""How fast random windows come out of a memory map, beside a plain DataLoader and `datasets`.

Run: `python -m benchmarks.data_loading`. All rows read the same bytes in one run, in turn, on one
thread, in windows of 8 KiB, as int64 inputs and targets; the figure is CPU seconds of this process
(wall time is noisy on shared cores). The plain DataLoader slices the same memory map by `randperm`
and collates; `datasets` streams a Parquet file with one window per row through a shuffle buffer.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import common
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
        yield torch.cat([torch.full((len(made), 1), 257), made[:, :-1]], dim=1).numel()


def measure(folder: Path, *, megabytes: int, windows: int) -> list[dict[str, object]]:
    """Megabytes per CPU second of each reader and batch size, on the same random bytes."""
    raw, table = write_bytes(folder, megabytes=megabytes)
    rows: list[dict[str, object]] = []
    for batch in (8, 32):
        readers = {"bytelm": ours(raw, batch), "plain DataLoader": plain(raw, batch)}
        readers["datasets streaming"] = streaming(table, batch)
        cases = {name: partial(take, reader, windows // batch) for name, reader in readers.items()}
        seconds = common.cpu_seconds(cases)
        size = windows // batch * batch * LENGTH / 1e6
        for name, times in seconds.items():
            speed = size / statistics.median(times)
            slower = common.ratio(times, seconds["bytelm"])
            rows.append({"reader": name, "batch": batch, "mb_s": speed, "times_bytelm": slower})
    return rows


def write_bytes(folder: Path, *, megabytes: int) -> tuple[Path, Path]:
    """The same bytes as a plain file and as Parquet, one window per row."""
    import pyarrow as pa
    from pyarrow import parquet

    content = np.random.default_rng(0).integers(0, 256, megabytes << 20, dtype=np.uint8)
    raw, table = folder / "bytes.bin", folder / "bytes.parquet"
    raw.write_bytes(content.tobytes())
    rows = [row.tobytes() for row in content.reshape(-1, LENGTH)]
    parquet.write_table(pa.table({"window": rows}), table, row_group_size=1000)
    return raw, table


def take(running: Iterator[int], count: int) -> int:
    """Bytes of the next `count` batches."""
    return sum(islice(running, count))


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--windows", type=int, default=1024, help="a reading, of which there are 6")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), megabytes=arguments.megabytes, windows=arguments.windows)
    table: list[list[object]] = [["reader", "windows a batch", "MB per CPU second", "CPU time"]]
    table += [
        [r["reader"], r["batch"], f"{r['mb_s']:.0f}", f"{r['times_bytelm']:.2f} x bytelm"]
        for r in rows
    ]
    common.store("data_loading", {"window_bytes": LENGTH, **vars(arguments), "rows": rows}, table)


if __name__ == "__main__":
    main()
