"""The files of a corpus as they are written: shards in order, then the index and the description.

What is written depends on the documents alone: a shard closes with the document that fills it. So
a writer can be brought to where an interrupted one was from the lengths of the documents so far.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from bytelm.data.corpus.reader import DESCRIPTION, DOCUMENTS, FORMAT, OFFSETS, PathLike, hash_file

_TEXT = ("source", "path", "group", "media", "sha256")
_GROUP = 10_000  # rows of documents.parquet that are held in memory before they go to disk


class ShardWriter:
    """Documents into the shards of one corpus in `folder`."""

    def __init__(self, folder: Path, *, shard_bytes: int):
        self._folder, self._shard_bytes = folder, shard_bytes
        self.bytes = self.duplicates = 0
        self._lengths = array("q")
        self._sizes: list[int] = []  # of the shards
        self._shard: IO[bytes] | None = None

    @property
    def documents(self) -> int:
        """How many were written."""
        return len(self._lengths)

    def replay(self, length: int) -> bool:
        """Count a document that is in its shard already; -> whether it began a new shard."""
        begins = not self._sizes or self._sizes[-1] >= self._shard_bytes
        if begins:
            self._sizes.append(0)
        self._sizes[-1] += length
        self._lengths.append(length)
        self.bytes += length
        return begins

    def write(self, data: bytes) -> None:
        """Append a document."""
        if self.replay(len(data)):
            self.flush()
            self.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shard = self._file(len(self._sizes) - 1).open("wb")
        elif self._shard is None:
            self._shard = self._file(len(self._sizes) - 1).open("ab")
        self._shard.write(data)

    def flush(self) -> None:
        """Until all of it is on the disk."""
        if self._shard is not None:
            self._shard.flush()
            os.fsync(self._shard.fileno())

    def cut(self) -> bool:
        """Remove what was left beyond the documents replayed; False if there is less than that."""
        kept = [self._file(i) for i in range(len(self._sizes))]
        if any(
            not file.is_file() or file.stat().st_size < size
            for file, size in zip(kept, self._sizes, strict=True)
        ):
            return False
        for file in set(self._folder.glob("*")) - set(kept):
            file.unlink()
        for file, size in zip(kept, self._sizes, strict=True):
            os.truncate(file, size)
        return True

    def describe(self, settings: Mapping[str, object]) -> None:
        """Write the offsets and the description; documents.parquet is there."""
        self.flush()
        self.close()
        offsets = np.concatenate([[0], np.cumsum(np.frombuffer(self._lengths, np.int64))])
        np.save(self._folder / OFFSETS, offsets.astype(np.int64))
        names = [*(self._file(i).name for i in range(len(self._sizes))), OFFSETS, DOCUMENTS]
        files = [_entry(self._folder / name) for name in names]
        # Where documents came from is no part of the identity: only their bytes and borders are.
        identity = [entry["sha256"] for entry in files[:-1]]
        description = {
            "format": FORMAT,
            "documents": self.documents,
            "bytes": self.bytes,
            "duplicates_left_out": self.duplicates,
            "fingerprint": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
            "settings": settings,
            "files": files,
        }
        text = json.dumps(description, indent=1) + "\n"
        (self._folder / DESCRIPTION).write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Let go of the open shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _file(self, number: int) -> Path:
        return self._folder / f"shard-{number:05}.bin"


def _entry(path: Path) -> dict[str, object]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)}


def row_of(meta: Mapping[str, Any], *, length: int, sha256: str) -> dict[str, Any]:
    """What is stored about a document: texts (or None) and numbers.

    Parquet holds UTF-8 only; file names need not be, and have their other bytes spelt \\udcNN.
    """
    row = {name: _utf8(meta.get(name)) for name in _TEXT}
    numbers = {"offset": meta.get("offset"), "address": meta.get("address"), "length": length}
    return {**row, **numbers, "sha256": sha256}


def _utf8(text: object) -> str | None:
    return None if text is None else str(text).encode("utf-8", "backslashreplace").decode("utf-8")


class Table:
    """documents.parquet of one corpus, written in groups of rows as they come."""

    def __init__(self, folder: Path):
        import pyarrow as pa
        from pyarrow import parquet

        text = [(name, pa.string()) for name in _TEXT]
        numbers = [("offset", pa.int64()), ("address", pa.uint64()), ("length", pa.int64())]
        self._schema = pa.schema([*text, *numbers])
        self._writer = parquet.ParquetWriter(folder / DOCUMENTS, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Append a row of `row_of`."""
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def documents_table(path: PathLike) -> Iterator[dict[str, object]]:
    """The stored metadata of each document of a built corpus, in order."""
    from pyarrow import parquet

    with parquet.ParquetFile(Path(path) / DOCUMENTS) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
