"""`Document`: the bytes of one document and where they came from, at hand or still where they lie.

Whoever reads documents one after the other (a build, an inspection) asks for `blocks`, so that a
document of any size takes constant memory; `data` is all of it at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 1 << 20  # bytes of a document that are read at once


@dataclass(frozen=True)
class Document:
    """The bytes of one document and where they came from.

    `meta` may hold: `source` (file read), `path` (place relative to what was opened: of a file in a
    folder, of a member in an archive, "a.zip!member" of a member of an archive in a folder),
    `group` (what must stay together when data is split: a package, a book; named relative to what
    was opened), `media` (format), for parts of executables `offset` and `address`, and the columns
    that `Reading.columns` names.

    >>> document = Document(b"abc", {"path": "a.txt"})
    >>> list(document.blocks()), document.head(), document.with_meta(group="a").meta
    ([b'abc'], b'abc', {'path': 'a.txt', 'group': 'a'})
    """

    data: bytes
    meta: dict[str, Any] = field(default_factory=dict)

    def blocks(self) -> Iterator[bytes]:
        """All of it in order, in pieces of at most `BLOCK` bytes."""
        for start in range(0, len(self.data), BLOCK):
            yield self.data[start : start + BLOCK]

    def head(self) -> bytes:
        """The first piece of it: what tells its format; b"" if it is empty."""
        return next(self.blocks(), b"")

    def with_meta(self, **changes: Any) -> "Document":
        """The same bytes with more, or other, metadata."""
        return Document(self.data, {**self.meta, **changes})


class LazyDocument(Document):
    """A document that stays where it is until it is read: `read` gives its bytes in blocks."""

    def __init__(self, read: Callable[[], Iterator[bytes]], meta: dict[str, Any]):
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "meta", meta)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """All of it, read again whenever it is asked for."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        return self._read()  # type: ignore[attr-defined, no-any-return]

    def with_meta(self, **changes: Any) -> "Document":
        return LazyDocument(self._read, {**self.meta, **changes})  # type: ignore[attr-defined]


def file_document(path: Path, meta: dict[str, Any]) -> Document:
    """The file at `path` as a document: in memory if it is one block, lazy if it is longer.

    Raises `OSError` for a file that cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(BLOCK + 1)
    if len(data) <= BLOCK:
        return Document(data, meta)
    return LazyDocument(lambda: file_blocks(path), meta)


def file_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in blocks."""
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK):
            yield block
