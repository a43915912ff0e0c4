"""`FileBytes`: ranges of a file that lies where it is, guarded against what happens to it.

Every read goes through the system rather than through a memory map. So a file that was cut short is
an error that names it (touching a map of it would kill the process), and any number of files take
few descriptors: the last `OPEN_FILES` used stay open. What is read again and again comes from the
page cache either way.
"""

import os
import threading
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import DataError

Bytes = NDArray[np.uint8]

OPEN_FILES = 64  # descriptors of this process for data, whatever is read


class ByteRange(Protocol):
    """Bytes that can be sliced: a file, or an array in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Bytes: ...


class FileBytes:
    """The bytes that a file had when it was opened; a slice is an array that cannot be written.

    Raises `DataError` for a slice that the file no longer holds, and for a file that was replaced
    or changed by the time it is opened again.

    >>> import tempfile; file = Path(tempfile.mkdtemp()) / "a"; _ = file.write_bytes(b"abc")
    >>> FileBytes.open(file)[1:3].tobytes()
    b'bc'
    """

    def __init__(self, path: Path, *, size: int, changed: int):
        """changed: time of the last change in nanoseconds, as `stat` has it."""
        self.path, self._size, self._changed = path, size, changed

    @classmethod
    def open(cls, path: Path) -> Self:
        """As the file is now."""
        status = path.stat()
        return cls(path, size=status.st_size, changed=status.st_mtime_ns)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> Bytes:
        start, stop, step = part.indices(self._size)
        assert step == 1, "a range"
        wanted, pieces = max(stop - start, 0), []
        while wanted:
            piece = self._read(wanted, start)
            pieces.append(piece)
            start, wanted = start + len(piece), wanted - len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return np.frombuffer(data, np.uint8)

    def _read(self, count: int, start: int) -> bytes:
        piece = _opened(str(self.path), self._size, self._changed).read(count, start)
        if not piece:
            raise changed_file(self.path, size=self._size)
        return piece


def changed_file(path: Path, *, size: int) -> DataError:
    """The error for a file that had `size` bytes when it was opened and is another now."""
    try:
        now = f"it had {size:,} bytes and has {path.stat().st_size:,} now"
    except OSError as error:
        now = error.strerror or str(error)
    return DataError(
        f"{path} has changed since it was opened: {now}. Restore the file and run the same command "
        "again (training resumes with --resume), or build a corpus that nothing else writes to"
    )


class _Handle:
    """An open file that is closed when nobody uses it any more."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self.fd)

    def read(self, count: int, start: int) -> bytes:
        """At most `count` bytes from `start` on; fewer at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(self.fd, count, start)
        with self._lock:  # Windows
            os.lseek(self.fd, start, os.SEEK_SET)
            return os.read(self.fd, count)


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: str, size: int, changed: int) -> _Handle:
    try:
        handle = _Handle(path)
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise changed_file(Path(path), size=size) from error
    status = os.fstat(handle.fd)
    if (status.st_size, status.st_mtime_ns) != (size, changed):
        raise changed_file(Path(path), size=size)
    return handle
