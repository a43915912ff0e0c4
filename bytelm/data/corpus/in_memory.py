"""Documents read into memory as a corpus: of archives, records and data sets that are not built.

So whatever a path means to `bytelm eval` and `bytelm data build`, it means in training, too. What
is too large for that is built into a corpus instead.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.data.corpus.metadata import FOLDER, first_folder
from bytelm.data.corpus.storage import Storage
from bytelm.data.magic import identify
from bytelm.data.sources.document import Document
from bytelm.errors import DataError

LARGEST = 1 << 30  # bytes of one path that are read into memory


@dataclass(frozen=True, kw_only=True, eq=False)
class InMemory(Storage):
    """Documents in memory, and a value per document of each column."""

    values: Mapping[str, list[Any]]

    def __reduce__(self) -> tuple[object, ...]:
        return _in_memory, (self.path, self.shards, self.lengths, dict(self.values))

    def identity(self) -> str:
        digest = hashlib.sha256(self.lengths.tobytes())
        digest.update(self.shards[0][:].data)
        return digest.hexdigest()

    def columns(self) -> list[str]:
        return list(self.values)

    def column(self, name: str) -> list[Any]:
        return self.values[name]


def _in_memory(
    path: Path, shards: list[Any], lengths: NDArray[np.int64], values: Mapping[str, list[Any]]
) -> InMemory:
    return InMemory(path=path, root=None, shards=shards, lengths=lengths, values=values)


def read_into_memory(
    spec: str | Path,
    documents: Iterable[Document],
    *,
    more: Mapping[str, list[Any]] | None = None,
    largest: int | None = None,
) -> InMemory:
    """The documents of `spec` with their metadata as columns, and `more` columns.

    Raises `DataError` beyond `largest` bytes (None: any number), with how to build a corpus.
    """
    bodies: list[bytes] = []
    metas: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        bodies.append(document.data)
        known = {"media": identify(bodies[-1]).format, "length": len(bodies[-1])}
        metas.append({**known, **document.meta})
        size += len(bodies[-1])
        if largest is not None and size > largest:
            raise DataError(
                f"{spec} holds more than {largest:,} bytes once it is unpacked, too much to keep "
                "in memory: build a corpus from it once, and name that in its place"
            )
    names = dict.fromkeys(name for meta in metas for name in meta)
    values = {name: [meta.get(name) for meta in metas] for name in names}
    values[FOLDER] = [first_folder(meta.get("path")) for meta in metas]
    data = np.frombuffer(b"".join(bodies), np.uint8)
    lengths = np.array([len(body) for body in bodies], dtype=np.int64)
    return _in_memory(Path(spec), [data], lengths, {**values, **(more or {})})
