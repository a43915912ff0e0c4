"""The documents a tokenizer is trained on: given as bytes, or as paths of anything readable."""

import os
from collections.abc import Iterable
from pathlib import Path

from bytelm.data.sources import open_source


def documents_of(paths: Iterable[str | os.PathLike[str] | bytes]) -> Iterable[bytes]:
    """The bytes of every document: given as bytes, or read by `open_source` (files, folders,
    wheels, .deb and other archives, record files)."""
    for item in paths:
        if isinstance(item, bytes):
            yield item
        else:
            yield from (document.data for document in open_source(_name(item)))


def _name(item: str | os.PathLike[str]) -> str | Path:
    return item if isinstance(item, str) else Path(item)


def least_bytes(paths: Iterable[str | os.PathLike[str] | bytes]) -> int:
    """What is known of the size before reading: of documents and of plain files."""
    return sum(
        len(item) if isinstance(item, bytes) else open_source(_name(item)).least_bytes()
        for item in paths
    )
