"""The one walker: which files a folder or a pattern names, for training, building and measuring.

Links to folders are followed, but each folder is read once, known by (device, inode), and never a
folder above the one that was named: so links in circles end, and a file is found once. Its real
path wins over one through a link. What is found and not read is in `Found.skipped`: links to
folders read already, broken links, devices, folders that cannot be entered, and what our own builds
left inside (a corpus is read when it is named itself; an unfinished build never).

In patterns `*`, `?` and `[...]` stand for parts of a name, `**` for any number of folders; as in
shells, none of them stands for the dot that a hidden name begins with. A folder is read with all
its hidden files.
"""

import fnmatch
import glob
import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bytelm.data.sources.notes import Kind

UNFINISHED = ".building"  # ends the name of the hidden folder a build works in
_States = frozenset[int]


@dataclass(frozen=True)
class Passed:
    """Something that was found and not read: of a `kind` of note, and why."""

    path: Path
    kind: Kind
    why: str


@dataclass(frozen=True)
class Found:
    """What a folder or pattern names.

    files    files, and folders that are one source (`markers`), sorted by the parts of their path
    skipped  what was found there and is not read
    """

    files: list[Path]
    skipped: list[Passed]


def find_files(folder: Path, *, markers: Sequence[Sequence[str]] = ()) -> Found:
    """All files below `folder`, however deep; a link to a folder is followed.

    markers  sets of file names, all of which a folder holds that is a source of its own

    Raises `OSError` if the folder itself cannot be read.
    """
    return _Walk(["**"], hidden=True, markers=markers).run(folder)


def match_files(pattern: Path, *, markers: Sequence[Sequence[str]] = ()) -> Found:
    """The files that a glob pattern names, and the folders with `markers` it ends at.

    Raises `OSError` if its fixed folder cannot be read.
    """
    folder = fixed_folder(pattern)
    parts = pattern.parts[len(folder.parts) :]
    if not folder.is_dir():
        return Found([], [])
    return _Walk(parts, hidden=False, markers=markers).run(folder)


def fixed_folder(pattern: Path) -> Path:
    """The part of a glob pattern before the first part with a wildcard.

    >>> fixed_folder(Path("data/*/*.txt")).as_posix(), fixed_folder(Path("*.txt")).as_posix()
    ('data', '.')
    """
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


@dataclass
class _Walk:
    """One walk for the parts of a pattern; states are the parts that may come next."""

    parts: Sequence[str]
    hidden: bool
    markers: Sequence[Sequence[str]]
    files: dict[tuple[int, int, str], Path] = field(default_factory=dict)
    skipped: list[Passed] = field(default_factory=list)
    _entered: dict[tuple[int, int], _States] = field(default_factory=dict)
    _above: set[tuple[int, int]] = field(default_factory=set)
    _folders: list[tuple[Path, _States]] = field(default_factory=list)
    _links: list[tuple[str, Path, _States]] = field(default_factory=list)

    def run(self, root: Path) -> Found:
        os.listdir(root)  # the root must be readable; what is below may be passed over
        self._above = {_identity(folder.stat()) for folder in root.resolve().parents}
        self._folders = [(root, self._closure([0]))]
        while self._folders or self._links:
            if self._folders:  # real folders first, so that their paths win
                self._enter(*self._folders.pop(), link=False)
            else:
                _, folder, states = heapq.heappop(self._links)
                self._enter(folder, states, link=True)
        self.skipped.sort(key=lambda passed: passed.path)
        return Found(sorted(self.files.values()), self.skipped)

    def _enter(self, folder: Path, states: _States, *, link: bool) -> None:
        try:
            here = _identity(folder.stat())
            if link and here in self._above and self._is_recursive(states):
                return self._skip(folder, "link", "leads to a folder above")
            before = self._entered.get(here, frozenset())
            if not (states := states - before - {len(self.parts)}) and before:
                return self._skip(folder, "link", "leads to a folder that is read already")
            self._entered[here] = before | states
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            return self._skip(folder, "unreadable folder", error.strerror or str(error))
        for entry in entries:
            if after := self._step(states, entry.name):
                self._take(folder / entry.name, entry, after, parent=here)

    def _take(
        self, path: Path, entry: "os.DirEntry[str]", states: _States, *, parent: tuple[int, int]
    ) -> None:
        ends = len(self.parts) in states
        try:
            if entry.is_dir():
                self._take_folder(path, entry, states, parent=parent)
            elif ends and entry.is_file():
                self.files.setdefault((*parent, entry.name), path)
            elif ends and entry.is_symlink():
                self._skip(path, "link", "leads nowhere, or to no file")
            elif ends:
                self._skip(path, "device", "is neither a file nor a folder")
        except OSError as error:
            self._skip(path, "link", error.strerror or str(error))

    def _take_folder(
        self, path: Path, entry: "os.DirEntry[str]", states: _States, *, parent: tuple[int, int]
    ) -> None:
        if entry.name.startswith(".") and entry.name.endswith(UNFINISHED):
            self._skip(path, "unfinished build", "is the work of a build")
        elif _holds(path, self.markers):
            if len(self.parts) in states and self.parts[-1] != "**":
                self.files.setdefault((*parent, entry.name), path)
            else:
                self._skip(path, "nested corpus", "is a built corpus: name it to read it")
        elif entry.is_symlink():
            heapq.heappush(self._links, (str(path), path, states))
        else:
            self._folders.append((path, states))

    def _skip(self, path: Path, kind: Kind, why: str) -> None:
        self.skipped.append(Passed(path, kind, why))

    def _is_recursive(self, states: _States) -> bool:
        return any(i < len(self.parts) and self.parts[i] == "**" for i in states)

    def _step(self, states: _States, name: str) -> _States:
        """The states after a name; empty: nothing of that name, or below it, is meant."""
        after = []
        for i in states:
            if i == len(self.parts):
                continue
            part = self.parts[i]
            if part == "**":
                after += [i] if self.hidden or not name.startswith(".") else []
            elif fnmatch.fnmatch(name, part) and (part[0] == "." or not name.startswith(".")):
                after.append(i + 1)
        return self._closure(after)

    def _closure(self, states: Iterable[int]) -> _States:
        """`**` also stands for no folder at all."""
        found = set(states)
        for i, part in enumerate(self.parts):
            if i in found and part == "**":
                found.add(i + 1)
        return frozenset(found)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _holds(folder: Path, markers: Sequence[Sequence[str]]) -> bool:
    return any(all(os.path.isfile(folder / name) for name in names) for names in markers)
