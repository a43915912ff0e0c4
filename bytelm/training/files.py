"""Writing so that a crash, a kill or a full disk never leaves half a file under its final name.

Everything goes to a temporary name in the same folder, is flushed to the disk (fsync of the file
and of the folder), and is renamed. A temporary name starts with ".tmp-"; leftovers of a killed run
are swept by `sweep` when the run is opened again.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bytelm.errors import TrainingError
from bytelm.training.distributed import Ranks

_TEMPORARY = ".tmp-"


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then put it at `path` in one step."""
    temporary = path.with_name(_TEMPORARY + path.name)
    with disk_errors(path):
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 at `path`, in one step."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def new_folder(path: Path, ranks: Ranks) -> Iterator[Path]:
    """A temporary folder that all ranks fill; on success it becomes `path`, in one step.

    A folder of that name is replaced.
    """
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
                _seal(temporary, path)
        finally:
            if ranks.first:
                shutil.rmtree(temporary, ignore_errors=True)


def _seal(temporary: Path, path: Path) -> None:
    """Flush all of a folder to the disk, then give it its name."""
    for entry in temporary.rglob("*"):
        _flush(entry)
    _flush(temporary)
    if path.exists():
        remove_folder(path)
    os.replace(temporary, path)
    _flush(path.parent)


def link_file(source: Path, path: Path) -> None:
    """Put the content of `source` at `path` in one step: a hard link where the disk has them."""

    def link(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_file(path, link)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between never leaves it half there under its name."""
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed writer left behind."""
    return all(entry.name.startswith(_TEMPORARY) for entry in folder.iterdir())


def sweep(folder: Path) -> None:
    """Remove what a killed writer left behind in `folder`."""
    for leftover in folder.glob(_TEMPORARY + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and its kin into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        raise TrainingError(
            f"cannot write {path}: {error.strerror}. Nothing half-written was left behind, and "
            "earlier checkpoints are intact. Make room (or lower train.keep_last), then go on with "
            "--resume"
        ) from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
