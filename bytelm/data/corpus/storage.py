"""What one path contributes to a corpus: a plain file as it stands, or a built folder."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.data.corpus.format import DESCRIPTION, OFFSETS, check_file, describe
from bytelm.data.corpus.metadata import FOLDER, first_folder, read_column, stored_columns
from bytelm.data.magic import identify
from bytelm.data.sources.open import missing
from bytelm.errors import DataError

Bytes = NDArray[np.uint8]

_VERIFY_BELOW = 256 << 20  # opening checks the hashes of corpora up to this size (about 0.3 s)
_SAMPLED_ABOVE = 64 << 20  # plain files above this are fingerprinted by size and 64 blocks
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage(ABC):
    """The documents at one path.

    path     the file or folder
    root     the folder `path` was found in by a pattern, None otherwise
    shards   memory maps of uint8, which joined are all bytes of the documents
    lengths  (documents,) int64 in bytes
    """

    path: Path
    root: Path | None
    shards: list[Bytes]
    lengths: NDArray[np.int64]

    def __reduce__(self) -> tuple[object, ...]:
        # A worker process maps the files again: pickling a memory map would copy its bytes.
        return _reopen, (self.path, self.root)

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
        if len(data) <= _SAMPLED_ABOVE:
            digest.update(data.data)
        else:
            for start in np.linspace(0, len(data) - _BLOCK, 64).astype(np.int64):
                digest.update(data[start : start + _BLOCK].data)
        return digest.hexdigest()

    def columns(self) -> list[str]:
        return ["source", "path", "group", "media", "length", FOLDER]

    def column(self, name: str) -> list[Any]:
        place = None if self.root is None else self.path.relative_to(self.root).as_posix()
        if name == "media":
            return [identify(self.shards[0][:_BLOCK].tobytes()).format]
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


def open_storage(path: Path, *, root: Path | None, verify: bool | None) -> Storage:
    """Map what is at `path`; `verify` as in `Corpus.open`.

    Raises `DataError` for a damaged corpus, an ordinary folder, and a path that does not exist.
    """
    if path.is_file():
        data = _map(path)
        lengths = np.array([len(data)], np.int64)
        return PlainFile(path=path, root=root, shards=[data], lengths=lengths)
    if (path / DESCRIPTION).is_file():
        return _open_built(path, root=root, verify=verify)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder without {DESCRIPTION}. Build a corpus from it with: "
            f"bytelm data build {path} --out CORPUS; or name its files, e.g. {path}/*"
        )
    raise missing(path)


def _reopen(path: Path, root: Path | None) -> Storage:
    return open_storage(path, root=root, verify=False)


def _open_built(path: Path, *, root: Path | None, verify: bool | None) -> BuiltCorpus:
    description = describe(path)
    if verify is None:
        verify = description["bytes"] <= _VERIFY_BELOW
    for entry in description["files"]:
        check_file(path / entry["file"], entry, verify=verify)
    offsets = np.load(path / OFFSETS, allow_pickle=False)
    shards = [_map(path / e["file"]) for e in description["files"] if e["file"].endswith(".bin")]
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


def _map(path: Path) -> Bytes:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)  # mmap refuses empty files
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
