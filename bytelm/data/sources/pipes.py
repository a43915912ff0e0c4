"""Standard input ("-") and pipes, such as the shell's <(command): one document, read once.

A pipe has no name that could say what it holds, so its first bytes decide: what is compressed is
unpacked, as the file of that name would be. Archives and records are not opened, and this is noted.
"""

import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bytelm.data.magic import identify
from bytelm.data.sources.base import Reading, Source
from bytelm.data.sources.document import BLOCK, Document, LazyDocument
from bytelm.data.sources.json_lines import holds_records
from bytelm.data.sources.limits import Budget
from bytelm.data.sources.look import Look
from bytelm.data.sources.streams import Compression, compression_of_pipe, decompressed
from bytelm.errors import DataError

STDIN = "-"
_CONTAINERS = ("zip", "tar", "ar", "deb", "parquet")


def is_pipe(path: Path) -> bool:
    """Whether a path is a pipe: named, or one of this process (/dev/fd/63)."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


class PipeSource(Source):
    """What comes out of a pipe, or of standard input for "-", as one document.

    Its bytes are not kept: reading it a second time is a `DataError`.
    """

    def __init__(self, spec: str | Path, reading: Reading | None = None):
        self._spec, self._reading = spec, reading or Reading()
        self._opened = False

    def __iter__(self) -> Iterator[Document]:
        if self._opened:
            raise DataError(f"{self._spec} is a pipe, which can be read once only")
        self._opened = True
        name = "stdin" if self._spec == STDIN else Path(self._spec).name
        stream = sys.stdin.buffer if self._spec == STDIN else open(self._spec, "rb")
        close = _nothing if self._spec == STDIN else stream.close
        meta = {"source": str(self._spec), "path": name, "group": name}
        first = stream.read(BLOCK)
        packed = None if self._reading.raw else compression_of_pipe(first)
        if packed is None:
            try:
                self._note(name, first)
            except DataError:
                close()
                raise
            yield _pipe_document(first, stream, meta, close=close)
            return
        try:
            data = _unpacked(first, stream, packed, self._reading.budget(name, 0))
        except DataError as error:
            self._reading.problem("damaged file", name, error)
            return
        finally:
            close()
        self._note(name, data)
        yield Document(data, meta)

    def _note(self, name: str, data: bytes) -> None:
        """Say of an archive and of records that they are taken as they stand."""
        if self._reading.raw:
            return
        kind = identify(data).format
        records = holds_records(Look.of_bytes(name, data), self._reading.field)
        if kind in _CONTAINERS or records:
            what = "JSON lines" if records else f"a {kind} file"
            why = f"{what} in a pipe is one document; give it as a file to have it opened"
            self._reading.note("unopened pipe", name, why=why)


def _nothing() -> None: ...


class _Counted:
    """A stream whose `first` bytes were read, which counts in a budget what is taken from it."""

    def __init__(self, first: bytes, stream: IO[bytes], budget: Budget):
        self._first, self._stream, self._budget = first, stream, budget

    def read(self, size: int) -> bytes:
        data, self._first = self._first[:size], self._first[size:]
        data = data or self._stream.read(size)
        self._budget.size = (self._budget.size or 0) + len(data)
        return data


def _unpacked(first: bytes, stream: IO[bytes], compression: Compression, budget: Budget) -> bytes:
    counted: Any = _Counted(first, stream, budget)
    return decompressed(counted, compression, budget).read()


def _pipe_document(
    first: bytes, stream: IO[bytes], meta: dict[str, Any], *, close: Callable[[], None]
) -> Document:
    """A stream of which the `first` block was read. That block may be looked at before the whole is
    read, once."""
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
