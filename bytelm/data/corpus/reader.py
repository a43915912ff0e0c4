"""`Corpus`: the bytes of many documents as one memory-mapped stream, built once or a plain file.

On disk a built corpus is a folder: `shard-00000.bin` ... (raw uint8), `offsets.npy` (int64, where
each document starts in the concatenated stream), `documents.parquet` (where it came from) and
`corpus.json` (counts, hashes, settings). Payloads hold no separators: begin and end symbols live
outside the byte range and are added on reading. Any plain file is a corpus of one document as it
stands, whatever its extension; reading records or archive members is the builder's work
(corpus/build.py).
"""

import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytelm.data.sources import Reading
from bytelm.errors import DataError, unknown_name

Bytes = NDArray[np.uint8]

FORMAT = 1
DESCRIPTION = "corpus.json"
OFFSETS = "offsets.npy"
DOCUMENTS = "documents.parquet"

_VERIFY_BELOW = 256 << 20  # opening checks the hashes of corpora up to this size (about 0.3 s)
_SAMPLED_ABOVE = 64 << 20  # plain files above this are fingerprinted by size and 64 blocks
_BLOCK = 1 << 20

PathLike = str | Path


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one path contributes: its shards, its document lengths, and its identity."""

    path: Path
    shards: list[Bytes]
    lengths: NDArray[np.int64]
    identity: Callable[[], str]


class Corpus:
    """Documents in a fixed order, and the stream of bytes they form when joined.

    >>> import tempfile; file = Path(tempfile.mkdtemp()) / "a.bin"; _ = file.write_bytes(b"abc")
    >>> corpus = Corpus.open(file)
    >>> len(corpus), corpus.total_bytes, bytes(corpus.document(0)), bytes(corpus.read(1, 3))
    (1, 3, b'abc', b'bc')
    """

    def __init__(self, parts: Sequence[_Part]):
        self._parts = list(parts)
        self._shards = [shard for part in parts for shard in part.shards if len(shard)]
        self._starts = _offsets([len(shard) for shard in self._shards])
        lengths = [part.lengths for part in parts]
        self.offsets = _offsets(np.concatenate(lengths) if lengths else [])
        if len(self) == 0:
            names = ", ".join(str(part.path) for part in parts) or "no path at all"
            raise DataError(f"the corpus is empty: {names} holds no document")

    @classmethod
    def open(cls, paths: PathLike | Iterable[PathLike], *, verify: bool | None = None) -> "Corpus":
        """Map a built corpus, a plain file, a glob pattern, or a list of those joined as one.

        `verify`: compare the shards with the stored hashes; None does so up to 256 MiB. Sizes are
        always compared. Raises `DataError` for a corrupted, truncated or empty corpus.
        """
        found = _expand(paths)
        return cls([_open_part(path, verify=verify) for path in found])

    @classmethod
    def build(
        cls,
        sources: object,
        path: PathLike,
        *,
        reading: Reading | None = None,
        deduplicate: bool = True,
        overwrite: bool = False,
    ) -> "Corpus":
        """Read `sources` into a new folder `path` and open it; see corpus/build.py."""
        from bytelm.data.corpus.build import build

        build(sources, path, reading=reading, deduplicate=deduplicate, overwrite=overwrite)
        return cls.open(path)

    @classmethod
    def concat(cls, corpora: Iterable["Corpus"]) -> "Corpus":
        """Several corpora as one, in the order given."""
        return cls([part for corpus in corpora for part in corpus._parts])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[object, ...]:
        # A worker process maps the files again: pickling a memory map would copy its bytes.
        return _reopen, ([part.path for part in self._parts],)

    @property
    def total_bytes(self) -> int:
        """Bytes of all documents together."""
        return int(self.offsets[-1])

    @property
    def paths(self) -> list[Path]:
        """The files and folders that were opened."""
        return [part.path for part in self._parts]

    def document(self, index: int) -> Bytes:
        """The bytes of one document; negative indices count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes [start, stop) of the joined stream: a view inside a shard, else a copy."""
        if not 0 <= start <= stop <= self.total_bytes:
            raise IndexError(f"bytes {start}..{stop} of a corpus of {self.total_bytes}")
        if start == stop:
            return np.empty(0, np.uint8)
        i = int(np.searchsorted(self._starts, start, side="right")) - 1
        base = int(self._starts[i])
        if stop <= self._starts[i + 1]:
            return self._shards[i][start - base : stop - base]
        pieces = []
        while start < stop:
            end = min(stop, int(self._starts[i + 1]))
            pieces.append(
                self._shards[i][start - int(self._starts[i]) : end - int(self._starts[i])]
            )
            start, i = end, i + 1
        return np.concatenate(pieces)

    def locate(self, position: int) -> tuple[int, int]:
        """(document, byte inside it) of a byte of the joined stream."""
        if not 0 <= position < self.total_bytes:
            raise IndexError(f"byte {position} of a corpus of {self.total_bytes}")
        document = int(np.searchsorted(self.offsets, position, side="right")) - 1
        return document, position - int(self.offsets[document])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content that does not depend on where the files are.

        Plain files above 64 MiB contribute their size and 64 evenly spaced MiB, so that opening a
        terabyte stays quick; a run's resume check needs no more.
        """
        parts = [part.identity() for part in self._parts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _reopen(paths: list[Path]) -> Corpus:
    return Corpus([_open_part(path, verify=False) for path in paths])


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    sizes = np.asarray(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _expand(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """The paths named, glob patterns replaced by their sorted matches."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[Path] = []
    for path in given:
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
        if Path(path).exists() or not glob.has_magic(str(path)):
            found.append(Path(path))
        elif matches:
            found.extend(Path(match) for match in matches if Path(match).is_file())
        else:
            raise DataError(f"no file matches {str(path)!r}")
    return found


def _open_part(path: Path, *, verify: bool | None) -> _Part:
    if path.is_file():
        return _open_file(path)
    if (path / DESCRIPTION).is_file():
        return _open_built(path, verify=verify)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder without {DESCRIPTION}. Build a corpus from it with: "
            f"bytelm data build {path} --out CORPUS; or name its files, e.g. {path}/*"
        )
    if path.exists():
        raise DataError(f"{path} is neither a file nor a folder")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{path} does not exist: " + unknown_name("file", path.name, siblings[:1000]))


def _map(path: Path) -> Bytes:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)  # mmap refuses empty files
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)


def _open_file(path: Path) -> _Part:
    data = _map(path)
    return _Part(
        path=path,
        shards=[data],
        lengths=np.array([len(data)], np.int64),
        identity=lambda: _identity(data),
    )


def _identity(data: Bytes) -> str:
    digest = hashlib.sha256(str(len(data)).encode())
    if len(data) <= _SAMPLED_ABOVE:
        digest.update(data.data)
    else:
        for start in np.linspace(0, len(data) - _BLOCK, 64).astype(np.int64):
            digest.update(data[start : start + _BLOCK].data)
    return digest.hexdigest()


def describe(path: Path) -> dict:
    """The `corpus.json` of a built corpus, checked for its format."""
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        found = description["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path / DESCRIPTION} is not a corpus description: {error}") from error
    if found != FORMAT:
        raise DataError(
            f"{path} has corpus format {found}; this version reads {FORMAT}. Rebuild it"
        )
    return description


def _open_built(path: Path, *, verify: bool | None) -> _Part:
    description = describe(path)
    if verify is None:
        verify = description["bytes"] <= _VERIFY_BELOW
    for entry in description["files"]:
        _check(path / entry["file"], entry, verify=verify)
    offsets = np.load(path / OFFSETS, allow_pickle=False)
    shards = [_map(path / e["file"]) for e in description["files"] if e["file"].endswith(".bin")]
    held = sum(len(shard) for shard in shards)
    if len(offsets) != description["documents"] + 1 or held != offsets[-1]:
        raise DataError(
            f"{path} is damaged: {OFFSETS} does not fit {DESCRIPTION} and the shards. Rebuild it"
        )
    fingerprint = description["fingerprint"]
    return _Part(path=path, shards=shards, lengths=np.diff(offsets), identity=lambda: fingerprint)


def _check(file: Path, entry: dict, *, verify: bool) -> None:
    """Compare one file of a corpus with its description."""
    if not file.is_file():
        raise DataError(f"{file} is missing; the corpus is incomplete. Rebuild it")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise DataError(f"{file} has {size} bytes instead of {entry['bytes']}. Rebuild the corpus")
    if verify and hash_file(file) != entry["sha256"]:
        raise DataError(
            f"{file} is corrupted: its sha256 is not the stored one. Rebuild the corpus"
        )


def hash_file(path: Path) -> str:
    """The sha256 of a file, read once."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
