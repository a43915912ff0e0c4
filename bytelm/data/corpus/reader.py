"""`Corpus`: the bytes of many documents as one stream, built once or files as they lie.

Any path means the documents that `open_source` reads there. Plain files and built corpora are read
where they are (file_bytes.py); the documents of archives, records and data sets are read into
memory. What lies on disk is described in format.py.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.data.corpus.file_bytes import Bytes
from bytelm.data.corpus.format import PathLike, is_corpus
from bytelm.data.corpus.in_memory import LARGEST, read_into_memory
from bytelm.data.corpus.storage import Storage, open_built, open_file
from bytelm.data.sources.base import Reading
from bytelm.data.sources.pipes import STDIN, is_pipe
from bytelm.data.sources.places import Place, places_of
from bytelm.errors import DataError, unknown_name
from bytelm.paths import to_path


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
    def open(
        cls,
        paths: PathLike | Iterable[PathLike],
        *,
        reading: Reading | None = None,
        verify: bool | None = None,
    ) -> "Corpus":
        """What a path, or a list of them, names: a built corpus, files, folders, glob patterns,
        archives, records, data sets, joined in order.

        `reading`: as for `open_source`; links and other things passed over are in its notes.
        `verify`: compare the shards with the stored hashes; None does so up to 256 MiB. Sizes are
        always compared. Raises `DataError` for a corrupted, truncated or empty corpus, for a pipe,
        and for what would unpack to more than a GiB.
        """
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        reading = reading or Reading()
        return cls([s for path in given for s in _storages(path, reading=reading, verify=verify)])

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
        # Not above: whoever only reads need not load what builds.
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


def _storages(spec: PathLike, *, reading: Reading, verify: bool | None) -> Iterator[Storage]:
    """What one path contributes."""
    if spec == STDIN or is_pipe(to_path(spec)):
        raise DataError(
            f"{spec} can be read once only, and training reads its data again and again. Build a "
            f"corpus from it with: bytelm data build {spec} --out CORPUS"
        )
    places = list(places_of(spec, reading=reading))
    for place in places:
        yield _storage(place, reading=reading, verify=verify)
    if not places:
        told = "; ".join(reading.notes.lines()) or "it is empty"
        raise DataError(f"there is no file to read in the folder {spec}: {told}")


def _storage(place: Place, *, reading: Reading, verify: bool | None) -> Storage:
    if place.kind is None:
        return open_file(Path(place.spec), root=place.root)
    if is_corpus(place.spec):
        return open_built(Path(place.spec), root=place.root, verify=verify)
    return read_into_memory(place.spec, place.source(reading), largest=LARGEST)
