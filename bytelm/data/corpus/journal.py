"""What a build has done so far, so that a killed one can resume.

The journal is one JSON object per line: the settings, then rows of metadata as documents are
written, and every few seconds a mark, which says how far the sources were read. Shards reach the
disk before the mark that counts them, so what a kill or a power cut leaves after the last mark is
simply cut off. A mark holds a hash of what the sources up to there were; a build resumes at the
last mark they still agree with.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bytelm.data.corpus.metadata import Row
from bytelm.data.sources.base import Source
from bytelm.version import __version__

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment to resume at: `taken` documents of leaf source number `leaf` are done.

    fingerprint  hash of what the sources up to `leaf` were; None: nobody can tell
    duplicates   documents left out so far, by corpus of the build
    noted        what the leaves before `leaf` left out, as `Notes.since` gives it
    """

    leaf: int = 0
    taken: int = 0
    fingerprint: str | None = None
    duplicates: list[int]
    noted: list[list[Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As a journal spells it; the fingerprint is called "chain" there."""
        return {
            **{"leaf": self.leaf, "taken": self.taken},
            **{"chain": self.fingerprint, "duplicates": self.duplicates},
            **({"noted": self.noted} if self.noted else {}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Mark":
        """From what `to_json` gives."""
        rest = dict(value)
        return cls(fingerprint=rest.pop("chain"), **rest)


class SourceFingerprint:
    """Hashes of the stamps of sources 0 to i: equal as long as none of them has changed."""

    def __init__(self, leaves: Iterable[Source]):
        self.leaves = list(leaves)
        self._hashes: list[str | None] = []

    def upto(self, leaf: int) -> str | None:
        """The hash over all up to `leaf`; None if one of them has no stamp, or there is none."""
        if leaf >= len(self.leaves):
            return None
        while len(self._hashes) <= leaf:
            before = self._hashes[-1] if self._hashes else ""
            stamp = None if before is None else self.leaves[len(self._hashes)].stamp()
            whole = f"{before}\0{stamp}".encode("utf-8", "surrogateescape")
            self._hashes.append(None if stamp is None else hashlib.sha256(whole).hexdigest())
        return self._hashes[leaf]


class Journal:
    """The journal of one build at `path`; see the top of the file for what is in it.

    found  whether an interrupted build left one
    kept   whether it holds a mark to resume at
    """

    def __init__(self, path: Path, *, settings: Row):
        self._path = path
        self._head = json.loads(json.dumps({"bytelm": __version__, "settings": settings}))
        self._rows: list[bytes] = []
        self.found = path.is_file()
        self.kept = False

    def recover(self, fingerprint: SourceFingerprint, *, corpora: int) -> Mark:
        """The last mark that the sources agree with; what follows it is cut off.

        A mark at the very start, with `kept` false, if there is none.
        """
        mark, end = Mark(duplicates=[0] * corpora), 0
        for number, (entry, after) in enumerate(self._entries()):
            if number == 0 and entry != self._head:
                break
            if "mark" in entry:
                found = Mark.from_json(entry["mark"])
                now = fingerprint.upto(found.leaf)
                if found.fingerprint is not None and found.fingerprint == now:
                    mark, end = found, after
        self.kept = end > 0
        if self.kept:
            os.truncate(self._path, end)
        return mark

    def begin(self) -> None:
        """An empty journal."""
        self._path.write_bytes(_line(self._head))

    def add(self, corpus: int, row: Row) -> None:
        """Remember a document's row; the next mark writes it."""
        self._rows.append(_line({"part": corpus, "row": row}))

    def mark(self, mark: Mark) -> None:
        """Write the rows since the last mark, and this one, to the disk."""
        with self._path.open("ab") as stream:
            stream.write(b"".join([*self._rows, _line({"mark": mark.to_json()})]))
            stream.flush()
            os.fsync(stream.fileno())
        self._rows = []
        self.kept |= mark.fingerprint is not None

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(number of the corpus, row) of each document that was written."""
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
