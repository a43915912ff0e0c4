"""Standard input ("-") and pipes, such as the shell's <(command): one document, read once."""

import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bytelm.data.sources.base import Source
from bytelm.data.sources.document import BLOCK, Document, LazyDocument
from bytelm.errors import DataError

STDIN = "-"


def is_pipe(path: Path) -> bool:
    """Whether a path is a pipe: named, or one of this process (/dev/fd/63)."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


class PipeSource(Source):
    """What comes out of a pipe, or of standard input for "-", as one document as it stands.

    Its bytes are not kept: reading it a second time is a `DataError`.
    """

    def __init__(self, spec: str | Path):
        self._spec = spec
        self._opened = False

    def __iter__(self) -> Iterator[Document]:
        if self._opened:
            raise DataError(f"{self._spec} is a pipe, which can be read once only")
        self._opened = True
        name = "stdin" if self._spec == STDIN else Path(self._spec).name
        stream = sys.stdin.buffer if self._spec == STDIN else open(self._spec, "rb")
        meta = {"source": str(self._spec), "path": name, "group": name}
        yield _pipe_document(stream, meta, close=_nothing if self._spec == STDIN else stream.close)


def _nothing() -> None: ...


def _pipe_document(
    stream: IO[bytes], meta: dict[str, Any], *, close: Callable[[], None]
) -> Document:
    """The rest of a stream. Its first block may be looked at before the whole is read, once."""
    first = stream.read(BLOCK)
    if len(first) < BLOCK:
        close()
        return Document(first, meta)
    rest = iter(lambda: stream.read(BLOCK), b"")
    taken = False

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        yield first
        if taken:
            raise DataError(f"{meta['source']} is a pipe, which can be read once only")
        taken = True
        yield from rest
        close()

    document = LazyDocument(blocks, meta)
    weakref.finalize(document, close)
    return document
