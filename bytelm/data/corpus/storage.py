"""What one path contributes to a corpus: a plain file as it stands, or a built folder."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.damage import malformed
from bytelm.data.corpus.file_bytes import ByteRange, FileBytes, changed_file
from bytelm.data.corpus.format import DESCRIPTION, OFFSETS, check_file, describe
from bytelm.data.corpus.metadata import FOLDER, first_folder, read_column, stored_columns
from bytelm.data.magic import identify
from bytelm.data.sources.document import BLOCK
from bytelm.data.sources.places import missing
from bytelm.errors import DataError

_VERIFY_BELOW = 256 << 20  # opening checks the hashes of corpora up to this size (about 0.3 s)
_SAMPLED_ABOVE = 64 << 20  # plain files above this are fingerprinted by size and 64 blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage(ABC):
    """The documents at one path.

    path     the file or folder
    root     the folder `path` was found in by a pattern, None otherwise
    shards   files or arrays of uint8, which joined are all bytes of the documents
    lengths  (documents,) int64 in bytes
    """

    path: Path
    root: Path | None
    shards: Sequence[ByteRange]
    lengths: NDArray[np.int64]

    def __reduce__(self) -> tuple[object, ...]:
        # A worker process opens the files again, and is told if they are others by then.
        return _reopen, (self.path, self.root, int(self.lengths.sum()))

    @abstractmethod
    def identity(self) -> str:
        """A hash of the content that does not depend on where it is."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The names `column` knows."""

    @abstractmethod
    def column(self, name: str) -> list[Any]:
        """A value (or None) per document."""


class PlainFile(Storage):
    """A file, whatever is in it, as a corpus of one document."""

    def identity(self) -> str:
        (data,) = self.shards
        digest = hashlib.sha256(str(len(data)).encode())
        starts = range(0, len(data), BLOCK)
        if len(data) > _SAMPLED_ABOVE:
            starts = np.linspace(0, len(data) - BLOCK, 64).astype(np.int64).tolist()
        for start in starts:
            digest.update(data[start : start + BLOCK].data)
        return digest.hexdigest()

    def columns(self) -> list[str]:
        return ["source", "path", "group", "media", "length", FOLDER]

    def column(self, name: str) -> list[Any]:
        place = None if self.root is None else self.path.relative_to(self.root).as_posix()
        if name == "media":
            return [identify(self.shards[0][:BLOCK].tobytes()).format]
        values = {"path": place, FOLDER: first_folder(place), "length": int(self.lengths[0])}
        return [values.get(name, str(self.path))]


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltCorpus(Storage):
    """A folder that a build made, and the fingerprint in its description."""

    fingerprint: str

    def identity(self) -> str:
        return self.fingerprint

    def columns(self) -> list[str]:
        return stored_columns(self.path)

    def column(self, name: str) -> list[Any]:
        return read_column(self.path, name)


def open_file(path: Path, *, root: Path | None = None) -> PlainFile:
    """The file at `path` as it stands; `DataError` if there is none."""
    if not path.is_file():
        raise missing(path)
    data = FileBytes.open(path)
    return PlainFile(path=path, root=root, shards=[data], lengths=np.array([len(data)], np.int64))


def open_built(path: Path, *, root: Path | None = None, verify: bool | None = None) -> BuiltCorpus:
    """The corpus in the folder `path`; `verify` as in `Corpus.open`.

    Raises `DataError` if it is damaged.
    """
    description = describe(path)
    if verify is None:
        verify = description["bytes"] <= _VERIFY_BELOW
    for entry in description["files"]:
        check_file(path / entry["file"], entry, verify=verify)
    with malformed(path / OFFSETS, "the offsets of a corpus", error=DataError):
        offsets = np.load(path / OFFSETS, allow_pickle=False)
        if offsets.ndim != 1 or offsets.dtype != np.int64 or (np.diff(offsets) < 0).any():
            raise ValueError("they are no ascending numbers of 64 bits")
    names = [e["file"] for e in description["files"] if e["file"].endswith(".bin")]
    shards = [FileBytes.open(path / name) for name in names]
    held = sum(len(shard) for shard in shards)
    if len(offsets) != description["documents"] + 1 or held != offsets[-1]:
        raise DataError(
            f"{path} is damaged: {OFFSETS} does not fit {DESCRIPTION} and the shards. Rebuild it"
        )
    return BuiltCorpus(
        path=path,
        root=root,
        shards=shards,
        lengths=np.diff(offsets),
        fingerprint=description["fingerprint"],
    )


def _reopen(path: Path, root: Path | None, size: int) -> Storage:
    is_built = (path / DESCRIPTION).is_file()
    opened = open_built(path, root=root, verify=False) if is_built else open_file(path, root=root)
    if opened.lengths.sum() != size:
        raise changed_file(path, size=size)
    return opened
