"""The one way to write: a crash, a kill or a full disk never leaves half a file under its name.

Everything goes to a temporary name in the same folder, is flushed to the disk (fsync of the file
and of the folder), and is renamed. Temporary names start with ".tmp-"; a file's has the number of
its process in it, so that two writers of one file never mix (the last one wins). A folder that is
replaced is moved aside as .NAME.replaced first. What a killed writer left is removed, or put back,
by `sweep` when the folder is opened again. What the system refuses to a user (no room, no
permission) is one error of ours, also where a library raises something else for it.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bytelm.errors import BytelmError, DiskError
from bytelm.locks import LOCK

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
    """Whether a folder holds nothing but what a killed writer left behind, or locks."""
    return all(entry.name.startswith((_TEMPORARY, LOCK)) for entry in folder.iterdir())


def sweep(folder: Path) -> None:
    """Remove what a killed writer left behind in `folder`, and put back what it moved aside."""
    for leftover in folder.glob(_TEMPORARY + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    for aside in folder.glob(f".*{_REPLACED}"):
        restore_folder(folder / aside.name[1 : -len(_REPLACED)])


# What the system refuses, and what the user can do about it.
_NO_ROOM = (
    "Make room (for training: or lower train.keep_last), then run the same command again; training "
    "resumes with --resume"
)
_NO_ACCESS = "Choose another place, or change who may write there, then run the same command again"
_REFUSALS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _NO_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _NO_ACCESS),
    errno.ENAMETOOLONG: "Choose a shorter name, then run the same command again",
    errno.EIO: "The disk itself reports an error: choose another one, and check this one",
}

# Exceptions of libraries that stand for an OSError: the name of the class, a pattern of the
# message, and the error number, or None where the pattern has it.
_LIBRARY_ERRORS: tuple[tuple[str, re.Pattern[str], int | None], ...] = (
    ("SafetensorError", re.compile(r"\(os error (\d+)\)"), None),
    ("ArrowException", re.compile(r"\[errno (\d+)\]"), None),
    ("OSError", re.compile(r"\d+ requested and \d+ written"), errno.ENOSPC),  # numpy
    # the zip writer of torch.save, which torch.distributed.checkpoint uses, drops the number: it
    # was given less room than it wrote
    ("RuntimeError", re.compile(r"inline_container\.cc|PytorchStreamWriter"), errno.ENOSPC),
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and related errors, whichever library raises them, into a `DiskError`
    that says what to do."""
    try:
        yield
    except BytelmError:
        raise
    except BaseException as error:  # a CheckpointException of torch is no Exception
        number = system_error(error)
        if number not in _REFUSALS:
            raise
        raise DiskError(
            f"cannot write {path}: {os.strerror(number)}. Nothing half-written was left behind, "
            f"and what was written before is intact. {_REFUSALS[number]}"
        ) from error


def system_error(error: BaseException) -> int | None:
    """The error number of the system that an exception stands for, or None.

    >>> system_error(OSError(errno.ENOSPC, "No space left on device")) == errno.ENOSPC
    True
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, pattern, number in _LIBRARY_ERRORS:
        if name in names and (found := pattern.search(str(error))):
            return number or int(found[1])
    # torch.distributed.checkpoint: one exception per rank, each with its traceback
    failures = getattr(error, "failures", None)
    inner = [failure[0] for failure in failures.values()] if isinstance(failures, dict) else []
    for part in (*inner, error.__cause__):
        if part is not None and (found_number := system_error(part)) is not None:
            return found_number
    return None


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a crash of the machine. Where a system does
    not do that for folders (Windows, some network disks), their names are its own business."""
    folder = path.is_dir()
    try:  # Windows flushes what is open for writing alone
        handle = os.open(path, os.O_RDONLY if folder or os.name == "posix" else os.O_RDWR)
    except PermissionError:
        if folder:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
