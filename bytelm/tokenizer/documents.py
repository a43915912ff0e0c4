"""The documents a tokenizer is trained on: given as bytes, or as paths of anything readable."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bytelm.data.grouping import in_groups
from bytelm.data.sources import Notes, Reading, open_source

_GROUP = 1 << 20  # bytes of documents that go to a thread together
Paths = Iterable[str | os.PathLike[str] | bytes]


def documents_of(paths: Paths, *, reading: Reading | None = None) -> Iterable[bytes]:
    """The bytes of every document: given as bytes, or read by `open_source` (files, folders,
    wheels, .deb and other archives, record files)."""
    for item in paths:
        if isinstance(item, bytes):
            yield item
        else:
            source = open_source(_name(item), reading=reading)
            yield from (document.data for document in source)


def _name(item: str | os.PathLike[str]) -> str | Path:
    return item if isinstance(item, str) else Path(item)


def least_bytes(paths: Paths, *, reading: Reading | None = None) -> int:
    """What is known of the size before reading: of documents and of plain files."""
    looking = replace(reading or Reading(), notes=Notes())  # what is noted counts on reading
    return sum(
        len(item)
        if isinstance(item, bytes)
        else open_source(_name(item), reading=looking).least_bytes()
        for item in paths
    )


def grouped(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Documents in groups of about `_GROUP` bytes, which are taken one at a time."""
    return in_groups(documents, least=_GROUP)
