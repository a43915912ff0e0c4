"""Locks between processes that the system frees with their holder, however that ends.

A lock is a file, locked with flock (on Windows with msvcrt) for as long as its holder lives, and
removed by it. A file that a killed holder left behind is not locked, so it stops nobody. Its
content says who holds it, for people.
"""

import errno
import os
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"  # the usual name: in the folder that is locked
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


@dataclass
class Lock:
    """A lock that this process holds."""

    path: Path
    handle: int

    def release(self) -> None:
        """Let others have it; the file is removed."""
        if fcntl is not None:  # while it is still locked, so that nobody locks a removed file
            self.path.unlink(missing_ok=True)
        os.close(self.handle)
        if fcntl is None and self.path.exists():
            self.path.unlink()


def try_lock(path: Path) -> Lock | None:
    """The lock of this file, made if need be, or None if another process (or lock) has it.

    Warns where the file system has no locks: then nothing keeps two processes apart.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "lock"
    >>> first = try_lock(path); try_lock(path) is None
    True
    >>> first.release(); path.exists()
    False
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in _HELD:
                os.close(handle)
                return None
            warnings.warn(f"{path} cannot be locked: {error.strerror}", stacklevel=2)
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return Lock(path, handle)
        os.close(handle)  # its last holder removed it between the two calls


def holder(path: Path) -> str:
    """Who holds a lock, for a message."""
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # far beyond the content, which others may then read
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(handle, 0, os.SEEK_SET)
