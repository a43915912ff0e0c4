"""`Corpus`: the bytes of many documents as one memory-mapped stream, built once or a plain file.

Any plain file is a corpus of one document as it stands, whatever its extension; reading records or
archive members is the builder's work (build.py). What lies on disk is described in format.py.
"""

import glob
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.data.corpus.format import PathLike
from bytelm.data.corpus.storage import Bytes, Storage, open_storage
from bytelm.data.sources.base import Reading
from bytelm.data.sources.open import fixed_folder
from bytelm.errors import DataError, unknown_name


class Corpus:
    """Documents in a fixed order, and the stream of bytes they form when joined.

    >>> import tempfile; file = Path(tempfile.mkdtemp()) / "a.bin"; _ = file.write_bytes(b"abc")
    >>> corpus = Corpus.open(file)
    >>> len(corpus), corpus.total_bytes, bytes(corpus.document(0)), bytes(corpus.read(1, 3))
    (1, 3, b'abc', b'bc')
    """

    def __init__(self, storages: Sequence[Storage]):
        self._storages = list(storages)
        self._shards = [shard for part in storages for shard in part.shards if len(shard)]
        self._starts = _offsets([len(shard) for shard in self._shards])
        lengths = [part.lengths for part in storages]
        self.offsets = _offsets(np.concatenate(lengths) if lengths else [])
        if len(self) == 0:
            names = ", ".join(str(part.path) for part in storages) or "no path at all"
            raise DataError(f"the corpus is empty: {names} holds no document")

    @classmethod
    def open(cls, paths: PathLike | Iterable[PathLike], *, verify: bool | None = None) -> "Corpus":
        """Map a built corpus, a plain file, a glob pattern, or a list of those joined as one.

        `verify`: compare the shards with the stored hashes; None does so up to 256 MiB. Sizes are
        always compared. Raises `DataError` for a corrupted, truncated or empty corpus.
        """
        return cls([open_storage(p, root=root, verify=verify) for p, root in _expand(paths)])

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
        """Read `sources` into a new folder `path` and open it; see `bytelm.data.corpus.build`."""
        # Not above: a build locks its folder, for which there are POSIX calls only.
        from bytelm.data.corpus.build import build

        build(sources, path, reading=reading, deduplicate=deduplicate, overwrite=overwrite)
        return cls.open(path)

    @classmethod
    def concat(cls, corpora: Iterable["Corpus"]) -> "Corpus":
        """Several corpora as one, in the order given."""
        return cls([part for corpus in corpora for part in corpus._storages])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[object, ...]:
        return Corpus, (self._storages,)

    @property
    def total_bytes(self) -> int:
        """Bytes of all documents together."""
        return int(self.offsets[-1])

    @property
    def paths(self) -> list[Path]:
        """The files and folders that were opened."""
        return [part.path for part in self._storages]

    def document(self, index: int) -> Bytes:
        """The bytes of one document, (n,) uint8; negative indices count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def column(self, name: str) -> list[Any]:
        """What is known about each document under `name`, a value or None per document.

        Names: source, path, group, media, length, folder (the first folder of `path`: the label
        where a collection has a folder per class); of built corpora also sha256, offset, address
        and what `Reading.columns` kept. Plain files know the former only. Raises `DataError` with
        the nearest match for a name that no part of the corpus knows.
        """
        columns = [part.columns() for part in self._storages]
        if not any(name in known for known in columns):
            allowed = dict.fromkeys(column for known in columns for column in known)
            raise DataError(unknown_name("column", name, allowed))
        values: list[Any] = []
        for part, known in zip(self._storages, columns, strict=True):
            values += part.column(name) if name in known else [None] * len(part.lengths)
        return values

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
        identities = [part.identity() for part in self._storages]
        return hashlib.sha256(json.dumps(identities).encode()).hexdigest()


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    sizes = np.asarray(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _expand(paths: PathLike | Iterable[PathLike]) -> list[tuple[Path, Path | None]]:
    """(path, the fixed folder of its pattern) of all paths named, patterns in sorted order."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[tuple[Path, Path | None]] = []
    for path in map(Path, given):
        if path.exists() or not glob.has_magic(str(path)):
            found.append((path, None))
            continue
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise DataError(f"no file matches {str(path)!r}")
        found += [(match, fixed_folder(path)) for match in matches if match.is_file()]
    return found
