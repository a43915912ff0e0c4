"""The one way to write: a crash, a kill or a full disk never leaves half a file under its name.

Everything goes to a temporary name in the same folder, is flushed to the disk (fsync of the file
and of the folder), and is renamed. Temporary names start with ".tmp-"; a file's has the number of
its process in it, so that two writers of one file never mix (the last one wins). A folder that is
replaced is moved aside as .NAME.replaced first. What a killed writer left is removed, or put back,
by `sweep` when the folder is opened again.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bytelm.errors import DiskError

_TEMPORARY = ".tmp-"
_REPLACED = ".replaced"


class Ranks(Protocol):
    """Processes that fill one folder together, as `bytelm.training.distributed.Ranks`."""

    @property
    def first(self) -> bool:
        """Whether this is the one that makes and names the folder."""

    def wait(self) -> None:
        """Return when every process has called it."""


class _Alone:
    first = True

    def wait(self) -> None: ...


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then put it at `path` in one step.

    Folders on the way are made. Raises `DiskError` when there is no room; whatever `write` raises
    passes through, and an earlier file at `path` stays as it was.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "made" / "a.bin"
    >>> write_file(path, lambda temporary: temporary.write_bytes(b"ab")); path.read_bytes()
    b'ab'
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """`data` at `path`, in one step."""
    write_file(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 at `path`, in one step."""
    write_bytes(path, text.encode("utf-8"))


def link_file(source: Path, path: Path) -> None:
    """Put the content of `source` at `path` in one step: a hard link where the disk has them."""

    def link(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_file(path, link)


@contextmanager
def new_folder(path: Path, ranks: Ranks | None = None) -> Iterator[Path]:
    """A temporary folder to fill; on success it becomes `path`, in one step.

    A folder of that name is replaced. Several `ranks` fill it together: each must enter and leave
    the block, and the first one names the result.
    """
    ranks = ranks or _Alone()
    temporary = path.with_name(_TEMPORARY + path.name)
    with disk_errors(path):
        try:
            if ranks.first:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            ranks.wait()
            yield temporary
            ranks.wait()
            if ranks.first:
                put_folder(temporary, path)
        finally:
            if ranks.first:
                shutil.rmtree(temporary, ignore_errors=True)


def put_folder(folder: Path, path: Path) -> None:
    """Flush all of a finished folder to the disk and give it the name `path`, in one step.

    A folder of that name is moved aside before and removed after; a kill in between is mended by
    `restore_folder(path)`.
    """
    for entry in folder.rglob("*"):
        _flush(entry)
    _flush(folder)
    if path.exists():
        os.replace(path, _aside(path))
    os.replace(folder, path)
    _flush(path.parent)
    restore_folder(path)


def restore_folder(path: Path) -> None:
    """Finish what a killed `put_folder` began: the old folder back, or gone if replaced."""
    aside = _aside(path)
    if aside.exists() and path.exists():
        shutil.rmtree(aside)
    elif aside.exists():
        os.replace(aside, path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_REPLACED}")


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between never leaves it half there under its name."""
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed writer left behind."""
    return all(entry.name.startswith(_TEMPORARY) for entry in folder.iterdir())


def sweep(folder: Path) -> None:
    """Remove what a killed writer left behind in `folder`, and put back what it moved aside."""
    for leftover in folder.glob(_TEMPORARY + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    for aside in folder.glob(f".*{_REPLACED}"):
        restore_folder(folder / aside.name[1 : -len(_REPLACED)])


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and related errors into a `DiskError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        raise DiskError(
            f"cannot write {path}: {error.strerror}. Nothing half-written was left behind, and "
            "what was written before is intact. Make room (for training: or lower "
            "train.keep_last), then run the same command again; training resumes with --resume"
        ) from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
