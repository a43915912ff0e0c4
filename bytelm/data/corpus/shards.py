"""The files of a corpus as they are written: shards in order, then the index and the description.

What is written depends on the documents alone: a shard closes with the document that fills it. So
a writer can be brought to where an interrupted one was from the lengths of the documents so far.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from bytelm.data.corpus.format import (
    DESCRIPTION,
    DOCUMENTS,
    FORMAT,
    OFFSETS,
    entry_of,
    shard_name,
)


class ShardWriter:
    """Documents into the shards of one corpus in `folder`.

    `bytes` and `documents` count what was written, `duplicates` what the caller left out.
    """

    def __init__(self, folder: Path, *, shard_bytes: int):
        self._folder, self._shard_bytes = folder, shard_bytes
        self.bytes = self.duplicates = 0
        self._lengths = array("q")
        self._sizes: list[int] = []  # of the shards
        self._shard: IO[bytes] | None = None  # open for writing, at its end

    @property
    def documents(self) -> int:
        """How many were written."""
        return len(self._lengths)

    def replay(self, length: int) -> None:
        """Count a document that is in its shard already."""
        if self._is_full():
            self._sizes.append(0)
        self._sizes[-1] += length
        self._lengths.append(length)
        self.bytes += length

    def write(self, data: bytes) -> None:
        """Append a document; it opens the next shard if the last one is full."""
        begins = self._is_full()
        self._open(begins).write(data)
        self.replay(len(data))

    def write_blocks(self, blocks: Iterable[bytes], *, keep: Callable[[], bool]) -> None:
        """Append a document that comes in blocks; it is taken back unless `keep()` after the last.

        An exception on the way leaves bytes that nothing counts: `cut` removes them.
        """
        begins, length = self._is_full(), 0
        before = 0 if begins else self._sizes[-1]
        shard = self._open(begins)
        for block in blocks:
            shard.write(block)
            length += len(block)
        if keep():
            self.replay(length)
            return
        shard.seek(before)
        shard.truncate()
        if begins:
            self.close()
            self._file(len(self._sizes)).unlink()

    def _is_full(self) -> bool:
        """Whether the next document begins a shard."""
        return not self._sizes or self._sizes[-1] >= self._shard_bytes

    def _open(self, begins: bool) -> IO[bytes]:
        """The shard that is written to: the next one if it `begins`."""
        if begins:
            self.flush()
            self.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shard = self._file(len(self._sizes)).open("wb")
        elif self._shard is None:
            self._shard = self._file(len(self._sizes) - 1).open("r+b")
            self._shard.seek(0, os.SEEK_END)
        return self._shard

    def flush(self) -> None:
        """Return when all of it is on the disk (fsync)."""
        if self._shard is not None:
            self._shard.flush()
            os.fsync(self._shard.fileno())

    def cut(self) -> bool:
        """Truncate what lies beyond the documents replayed; False if there is less than that."""
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
        files = [entry_of(self._folder / name) for name in names]
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
        """Close the open shard; writing opens it again."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _file(self, number: int) -> Path:
        return self._folder / shard_name(number)
