"""`BuildFolder`: where a build works, so that a killed one can resume and none is ever half there.

A build into NAME works in the hidden sibling .NAME.building, locked while someone writes there
(locks.py, freed by the system with its holder). Beside the unfinished corpus lies the journal. When
all is done the corpus takes its name in one step (`bytelm.files.put_folder`).
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from bytelm.data.corpus.format import is_built
from bytelm.data.corpus.journal import JOURNAL, Journal
from bytelm.data.corpus.metadata import Row
from bytelm.data.sources.walk import UNFINISHED
from bytelm.errors import DataError
from bytelm.files import put_folder, restore_folder
from bytelm.locks import LOCK, Lock, try_lock

Notify = Callable[[str], None]  # tells a person what is happening, in one sentence


class BuildFolder:
    """The folder a build of `path` works in, as a context.

    folder   the hidden folder, with the journal and `corpus`
    corpus   the unfinished corpus

    Left behind by an exception only if `journal.kept`; `notify` is then told how to resume. Raises
    `DataError` if another process is building `path`, or if `path` exists and is not a corpus that
    may be replaced (`overwrite`).
    """

    def __init__(self, path: Path, *, settings: Row, overwrite: bool, notify: Notify | None = None):
        self.path, self.notify = path, notify or (lambda message: None)
        self.folder = path.with_name(f".{path.name}{UNFINISHED}")
        self.corpus = self.folder / "corpus"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        if self._lock is None:
            raise DataError(
                f"another process is building {path} right now: wait for it, or choose another "
                "--out"
            )
        self.journal = Journal(self.folder / JOURNAL, settings=settings)
        restore_folder(path)
        if path.exists() and not (overwrite and is_built(path)):
            self._leave(keep=self.journal.found)
            raise DataError(f"{path} exists. Choose another --out, or overwrite a corpus")

    def __enter__(self) -> "BuildFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        keep = error is not None and self.journal.kept
        self._leave(keep=keep)
        if keep:
            self.notify(
                f"the build of {self.path} stopped; the same command resumes it where it was "
                f"(or remove {self.folder})"
            )

    def _leave(self, *, keep: bool) -> None:
        assert self._lock is not None, "entered once"
        if not keep:
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry != self._lock.path:
                    entry.unlink()
        self._lock.release()
        self._lock = None
        if not keep:
            with suppress(OSError):  # another build has begun there
                self.folder.rmdir()

    def clear(self) -> None:
        """Forget whatever an earlier build left."""
        self.journal.kept = False
        shutil.rmtree(self.corpus, ignore_errors=True)
        self.corpus.mkdir()
        self.journal.begin()

    def put_in_place(self) -> None:
        """Give the finished corpus its name; one of that name is replaced."""
        put_folder(self.corpus, self.path)


def _lock(folder: Path) -> Lock | None:
    """The lock of the folder, which is made if need be; None if someone else has it."""
    while True:
        folder.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # its last holder removed the folder just now
            return try_lock(folder / LOCK)
