"""What a build has done so far, in a folder of its own, so that a killed one can go on.

A build into NAME works in the hidden sibling .NAME.building, locked while someone writes there
(flock, freed by the system with its holder). Beside the unfinished corpus lies a journal, one JSON
object a line: the settings, then rows of metadata as documents are written, and every few seconds a
mark, which says how far the sources were read. Shards reach the disk before the mark that counts
them, so what a kill or a power cut leaves after the last mark is simply cut off. A mark holds a
hash of what the sources up to there were; going on starts from the last mark they still agree with.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bytelm import __version__
from bytelm.data.sources import Source
from bytelm.errors import DataError

JOURNAL = "journal.jsonl"

Row = dict[str, Any]
Say = Callable[[str], None]  # tells a person what is going on


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment to go on from: `taken` documents of leaf source number `leaf` are done.

    chain       hash of what the sources up to `leaf` were; None: nobody can tell
    duplicates  documents left out so far, by part of the build
    """

    leaf: int = 0
    taken: int = 0
    chain: str | None = None
    duplicates: list[int]


class Chain:
    """Hashes of the stamps of sources 0 to i: equal as long as none of them has changed."""

    def __init__(self, leaves: Iterable[Source]):
        self.leaves = list(leaves)
        self._links: list[str | None] = []

    def upto(self, leaf: int) -> str | None:
        """The hash over all up to `leaf`; None if one of them has no stamp, or there is none."""
        if leaf >= len(self.leaves):
            return None
        while len(self._links) <= leaf:
            before = self._links[-1] if self._links else ""
            stamp = None if before is None else self.leaves[len(self._links)].stamp()
            whole = f"{before}\0{stamp}".encode("utf-8", "surrogateescape")
            self._links.append(None if stamp is None else hashlib.sha256(whole).hexdigest())
        return self._links[leaf]


class Journal:
    """The journal of one build at `path`; see the top of the file for what is in it."""

    def __init__(self, path: Path, *, settings: Row):
        self._path = path
        self._head = json.loads(json.dumps({"bytelm": __version__, "settings": settings}))
        self._rows: list[bytes] = []
        self.found = path.is_file()  # whether an interrupted build left one
        self.kept = False  # whether it holds a mark to go on from

    def recover(self, chain: Chain, *, parts: int) -> Mark:
        """The last mark that the sources agree with; what follows it is cut off.

        A mark at the very start, with `kept` false, if there is none.
        """
        mark, end = Mark(duplicates=[0] * parts), 0
        for number, (entry, after) in enumerate(self._entries()):
            if number == 0 and entry != self._head:
                break
            if "mark" in entry:
                found = Mark(**entry["mark"])
                if found.chain is not None and found.chain == chain.upto(found.leaf):
                    mark, end = found, after
        self.kept = end > 0
        if self.kept:
            os.truncate(self._path, end)
        return mark

    def begin(self) -> None:
        """An empty journal."""
        self._path.write_bytes(_line(self._head))

    def add(self, part: int, row: Row) -> None:
        """Remember a document's row; the next mark writes it."""
        self._rows.append(_line({"part": part, "row": row}))

    def mark(self, mark: Mark) -> None:
        """Write the rows since the last mark, and this one, to the disk."""
        with self._path.open("ab") as stream:
            stream.write(b"".join([*self._rows, _line({"mark": asdict(mark)})]))
            stream.flush()
            os.fsync(stream.fileno())
        self._rows = []
        self.kept |= mark.chain is not None

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(part, row) of each document that was written."""
        for entry, _ in self._entries():
            if "row" in entry:
                yield entry["part"], entry["row"]

    def _entries(self) -> Iterator[tuple[dict[str, Any], int]]:
        """(object, where its line ends) of the lines that are whole."""
        if not self._path.is_file():
            return
        end = 0
        with self._path.open("rb") as stream:
            for line in stream:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:  # a power cut may leave anything after the last mark
                    return
                if entry is None:
                    return
                end += len(line)
                yield entry, end


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


class Scratch:
    """The hidden folder a build works in, and how its result takes the place of `path`.

    Left behind by an exception only if `journal.kept`; says so, and how to go on, through `say`.
    """

    def __init__(self, path: Path, *, settings: Row, overwrite: bool, say: Say | None = None):
        self.path, self.say = path, say or (lambda message: None)
        self._replaced = path.with_name(f".{path.name}.replaced")
        self.folder = path.with_name(f".{path.name}.building")
        self.corpus = self.folder / "corpus"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        if self._lock is None:
            raise DataError(
                f"another process is building {path} right now: wait for it, or choose another "
                "--out"
            )
        self.journal = Journal(self.folder / JOURNAL, settings=settings)
        self._restore_replaced()
        if path.exists() and not (overwrite and is_built(path)):
            self._leave(keep=self.journal.found)
            raise DataError(f"{path} exists. Choose another --out, or overwrite a corpus")

    def __enter__(self) -> "Scratch":
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
            self.say(
                f"the build of {self.path} stopped; the same command goes on from where it was "
                f"(or remove {self.folder})"
            )

    def _leave(self, *, keep: bool) -> None:
        assert self._lock is not None, "entered once"
        if not keep:
            shutil.rmtree(self.folder)
        os.close(self._lock)
        self._lock = None

    def clear(self) -> None:
        """Forget whatever an earlier build left."""
        self.journal.kept = False
        shutil.rmtree(self.corpus, ignore_errors=True)
        self.corpus.mkdir()
        self.journal.begin()

    def put_in_place(self) -> None:
        """Give the finished corpus its name."""
        if self.path.exists():
            self.path.rename(self._replaced)
        self.corpus.rename(self.path)
        self._restore_replaced()

    def _restore_replaced(self) -> None:
        """Put back the corpus of a build killed while it replaced it, or remove it if replaced."""
        if self._replaced.exists() and self.path.exists():
            shutil.rmtree(self._replaced)
        elif self._replaced.exists():
            self._replaced.rename(self.path)


def is_built(path: Path) -> bool:
    """Whether a folder is what a build made: a corpus, or the two of a split."""
    return any((path / part / "corpus.json").is_file() for part in ("", "train"))


def _lock(folder: Path) -> int | None:
    """An open handle that locks the folder, made if need be; None if someone else has it."""
    while True:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        # Its last holder may have removed it between the two calls.
        if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)
