"""Build a corpus folder from sources: one pass, deterministic, all or nothing.

Everything is written into a hidden sibling folder which is renamed at the end, so a build that is
interrupted leaves no half corpus; what a killed one left is removed by the next, which knows by a
lock (flock, freed by the system with its holder) that nobody is writing there. Documents keep the
order of their sources; a shard closes with the document that fills it, so documents are never
split. Nothing that differs between two runs (times, absolute paths of the output) is stored:
building twice gives the same bytes.
"""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from bytelm.data.corpus import (
    DESCRIPTION,
    DOCUMENTS,
    FORMAT,
    OFFSETS,
    Corpus,
    PathLike,
    hash_file,
)
from bytelm.data.magic import identify
from bytelm.data.order import keys
from bytelm.data.sources import Document, Reading, open_source
from bytelm.errors import DataError

SHARD_BYTES = 256 << 20
Progress = Callable[[int, int], None]  # (documents, bytes) so far

_COLUMNS = ("source", "path", "group", "media", "sha256")
_FLUSH = 10_000  # documents whose metadata is held in memory before it goes to disk


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build wrote."""

    path: Path
    documents: int
    bytes: int
    duplicates: int


def build(
    sources: object,
    path: PathLike,
    *,
    reading: Reading | None = None,
    deduplicate: bool = True,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Write the documents of `sources` (anything `open_source` takes) as a corpus at `path`.

    Documents whose bytes were seen before are left out if `deduplicate`. `DataError` if `path`
    exists (unless it is a corpus and `overwrite`), or if the sources hold no document.
    """
    reading = reading or Reading()
    documents = iter(open_source(sources, reading=reading))
    settings = {"deduplicate": deduplicate, "shard_bytes": shard_bytes, "reading": asdict(reading)}
    with Writer(path, settings=settings, overwrite=overwrite) as writer:
        for document in documents:
            writer.add(document)
            if progress is not None:
                progress(writer.documents, writer.bytes)
        return writer.finish()


def build_split(
    sources: object,
    path: PathLike,
    *,
    heldout: float,
    seed: int = 0,
    reading: Reading | None = None,
    deduplicate: bool = True,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Built, Built]:
    """Two corpora, `path`/train and `path`/heldout: whole groups go to one of them.

    A group is held out with probability `heldout`, by a hash of its name and `seed`, so adding
    data later moves nothing. Duplicates are left out across both.
    """
    if not 0 < heldout < 1:
        raise DataError(f"the held-out share must be between 0 and 1, not {heldout}")
    reading = reading or Reading()
    source = open_source(sources, reading=reading)
    settings = {
        **{"deduplicate": deduplicate, "shard_bytes": shard_bytes, "reading": asdict(reading)},
        **{"heldout": heldout, "seed": seed},
    }
    parts = [Path(path) / "train", Path(path) / "heldout"]
    seen: set[bytes] = set()
    with (
        Writer(parts[0], settings=settings, overwrite=overwrite, seen=seen) as train,
        Writer(parts[1], settings=settings, overwrite=overwrite, seen=seen) as held,
    ):
        for document in source:
            (held if is_heldout(document, share=heldout, seed=seed) else train).add(document)
            if progress is not None:
                progress(train.documents + held.documents, train.bytes + held.bytes)
        if not train.documents or not held.documents:
            raise DataError(
                f"the split left {train.documents} documents for training and {held.documents} "
                f"held out: there are too few groups for a share of {heldout}"
            )
        return train.finish(), held.finish()


def is_heldout(document: Document, *, share: float, seed: int) -> bool:
    """Whether a document's group falls into the held-out share."""
    (word,) = keys("heldout", seed, str(document.meta.get("group", "")), count=1)
    return int(word) < share * 2**64


class Writer:
    """Writes a corpus into a temporary folder; `finish` puts it in place, anything else removes it.

    `seen` holds the sha256 of documents already written; pass one set to several writers to leave
    out duplicates across them.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        settings: dict[str, object],
        overwrite: bool = False,
        seen: set[bytes] | None = None,
    ):
        self.path = Path(path)
        self._replaced = self.path.with_name(f".{self.path.name}.replaced")
        self._restore_replaced()
        if self.path.exists() and not (overwrite and (self.path / DESCRIPTION).is_file()):
            raise DataError(f"{self.path} exists. Choose another --out, or overwrite a corpus")
        self.documents = self.bytes = self.duplicates = 0
        self._settings = settings
        self._seen = set() if seen is None else seen
        self._lengths = array("q")
        self._rows: list[dict[str, object]] = []
        self._shard: IO[bytes] | None = None
        self._shards = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{self.path.name}.building-"
        _sweep(self.path.parent, prefix)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.path.parent))
        self._lock = _lock(self._folder)
        self._table = _Table(self._folder / DOCUMENTS)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_shard()
        self._table.close()
        if self._folder.exists():
            shutil.rmtree(self._folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add(self, document: Document) -> None:
        """Append one document, unless its bytes were seen before."""
        digest = hashlib.sha256(document.data)
        if self._settings["deduplicate"]:
            if digest.digest() in self._seen:
                self.duplicates += 1
                return
            self._seen.add(digest.digest())
        self._write(document.data)
        media = identify(document.data).format
        meta = {"media": media, **document.meta, "sha256": digest.hexdigest()}
        row = {name: meta.get(name) for name in _COLUMNS}
        self._rows.append({**row, "offset": meta.get("offset"), "address": meta.get("address")})
        self._lengths.append(len(document.data))
        self.documents += 1
        self.bytes += len(document.data)
        if len(self._rows) == _FLUSH:
            self._flush()

    def finish(self) -> Built:
        """Write the index and put the folder in place."""
        if not self.documents:
            raise DataError(f"no document to write to {self.path}: the sources are empty")
        self._close_shard()
        self._flush()
        self._table.close()
        offsets = np.concatenate([[0], np.cumsum(np.frombuffer(self._lengths, np.int64))])
        np.save(self._folder / OFFSETS, offsets.astype(np.int64))
        self._describe()
        os.chmod(self._folder, 0o755)  # mkdtemp makes it private
        self._put_in_place()
        return Built(
            path=self.path,
            documents=self.documents,
            bytes=self.bytes,
            duplicates=self.duplicates,
        )

    def _put_in_place(self) -> None:
        if self.path.exists():
            self.path.rename(self._replaced)
        self._folder.rename(self.path)
        self._restore_replaced()

    def _restore_replaced(self) -> None:
        """Put back the corpus of a build killed while it replaced it, or remove it if replaced."""
        if self._replaced.exists() and self.path.exists():
            shutil.rmtree(self._replaced)
        elif self._replaced.exists():
            self._replaced.rename(self.path)

    def _write(self, data: bytes) -> None:
        if self._shard is None:
            self._shard = (self._folder / f"shard-{self._shards:05}.bin").open("wb")
            self._shards += 1
        self._shard.write(data)
        if self._shard.tell() >= int(str(self._settings["shard_bytes"])):
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _flush(self) -> None:
        lengths = self._lengths[len(self._lengths) - len(self._rows) :]
        self._table.write(self._rows, lengths.tolist())
        self._rows = []

    def _describe(self) -> None:
        names = [*(f"shard-{i:05}.bin" for i in range(self._shards)), OFFSETS, DOCUMENTS]
        files = [_entry(self._folder / name) for name in names]
        # Where documents came from is no part of the identity: only their bytes and borders are.
        identity = [entry["sha256"] for entry in files[:-1]]
        description = {
            "format": FORMAT,
            "documents": self.documents,
            "bytes": self.bytes,
            "duplicates_left_out": self.duplicates,
            "fingerprint": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
            "settings": self._settings,
            "files": files,
        }
        text = json.dumps(description, indent=1) + "\n"
        (self._folder / DESCRIPTION).write_text(text, encoding="utf-8")


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of builds that were killed; those being written are locked."""
    for folder in parent.glob(glob.escape(prefix) + "*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """An open handle that locks the folder until it is closed; None if someone else has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _entry(path: Path) -> dict[str, object]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)}


class _Table:
    """documents.parquet, written in groups of rows as they come."""

    def __init__(self, path: Path):
        import pyarrow as pa
        from pyarrow import parquet

        text = [(name, pa.string()) for name in _COLUMNS]
        numbers = [("offset", pa.int64()), ("address", pa.uint64()), ("length", pa.int64())]
        self._schema = pa.schema([*text, *numbers])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: list[dict[str, object]], lengths: list[int]) -> None:
        """Append rows."""
        import pyarrow as pa

        whole = [{**row, "length": n} for row, n in zip(rows, lengths, strict=True)]
        if whole:
            self._writer.write_table(pa.Table.from_pylist(whole, schema=self._schema))

    def close(self) -> None:
        """Finish the file; again is harmless."""
        self._writer.close()


def documents_table(path: PathLike) -> Iterator[dict[str, object]]:
    """The stored metadata of each document of a built corpus, in order."""
    from pyarrow import parquet

    with parquet.ParquetFile(Path(path) / DOCUMENTS) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def open_documents(paths: list[str], *, reading: Reading) -> Iterator[Document]:
    """The documents of paths that may be built corpora or anything `open_source` takes."""
    for path in paths:
        if (Path(path) / DESCRIPTION).is_file():
            yield from stored_documents(path)
        else:
            yield from open_source(path, reading=reading)


def stored_documents(path: PathLike) -> Iterator[Document]:
    """The documents of a built corpus with the metadata they were stored with."""
    corpus = Corpus.open(path)
    for i, row in enumerate(documents_table(path)):
        yield Document(corpus.document(i).tobytes(), row)
