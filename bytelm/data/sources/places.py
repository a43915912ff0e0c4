"""What a path, folder, pattern or "scheme:..." text means: the places it names, and who reads each.

This is decided here and nowhere else, so that training, building, measuring, inspecting and
tokenizers find the same documents at the same path. Registered sources (`bytelm.registry.SOURCES`)
are asked in order, ours first: a scheme, a folder with their `markers`, then the name and content
of the file (kinds.py). What nobody claims is one document as it stands.
"""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bytelm.data.sources.base import FileSource, PlacedSource, Reading, Source
from bytelm.data.sources.kinds import kind_of
from bytelm.data.sources.walk import Found, find_files, fixed_folder, match_files
from bytelm.errors import DataError, unknown_name
from bytelm.paths import to_path
from bytelm.registry import SOURCES

Kind = type[Source]


@dataclass(frozen=True)
class Place:
    """One thing that is read: a file, a folder that is a source, or a "scheme:..." text.

    spec  the path, or the text
    root  the folder that `spec` was found in, None if it was named itself
    kind  the source that reads it; None: it is one document as it stands
    """

    spec: str | Path
    root: Path | None
    kind: Kind | None

    def source(self, reading: Reading) -> Source:
        """What reads it."""
        if isinstance(self.spec, str):
            assert self.kind is not None, "schemes are found by a source"
            return self.kind.open(self.spec, reading=reading)
        name = self.spec.relative_to(self.root).as_posix() if self.root else self.spec.name
        if self.kind is None:
            group = str(Path(name).parent) if reading.group_by_folder else name
            if reading.group_by_folder and self.root is None:
                group = self.spec.absolute().parent.name
            source: Source = FileSource(self.spec, group, reading)
        else:
            source = self.kind.open(self.spec, reading=reading)
        return PlacedSource(source, name, named=self.root is None, reading=reading)


def places_of(spec: str | Path, *, reading: Reading) -> Iterator[Place]:
    """The places that `spec` names, sorted; links and other things passed over are noted.

    Raises `DataError` for what is not there, with the nearest name that is.
    """
    kinds = [kind for _, kind in SOURCES.items()]
    scheme = spec.partition(":")[0] if isinstance(spec, str) and ":" in spec else ""
    for kind in kinds:
        if scheme and kind.scheme == scheme:
            yield Place(spec, None, kind)
            return
    path = to_path(spec)
    if path.is_file() or _holds_source(path, kinds):
        yield Place(path, None, _kind_of(path, kinds, reading=reading))
        return
    for found, root in _files_of(path, kinds, reading=reading):
        yield Place(found, root, _kind_of(found, kinds, reading=reading))


def _files_of(path: Path, kinds: list[Kind], *, reading: Reading) -> Iterator[tuple[Path, Path]]:
    """(file or folder that is a source, the folder it was found in) of a folder or pattern."""
    markers = [kind.markers for kind in kinds if kind.markers]
    try:
        if path.is_dir():
            found, root = find_files(path, markers=markers), path
        elif glob.has_magic(str(path)):
            found, root = match_files(path, markers=markers), fixed_folder(path)
        else:
            raise missing(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    _note(found, reading=reading)
    if not found.files and not path.is_dir():
        raise DataError(f"no file matches {str(path)!r}")
    for file in found.files:
        yield file, root


def _note(found: Found, *, reading: Reading) -> None:
    for passed in found.skipped:
        reading.note(passed.kind, str(passed.path), why=passed.why)


def missing(path: Path) -> DataError:
    """The error for a path at which there is no file, with the nearest name beside it."""
    if path.exists():
        return DataError(f"{path} is neither a file nor a folder")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return DataError(f"{path} does not exist: " + unknown_name("file", path.name, siblings[:1000]))


def _holds_source(path: Path, kinds: list[Kind]) -> bool:
    """Whether a folder is one source."""
    return any(kind.markers and (path / kind.markers[0]).is_file() for kind in kinds)


def _kind_of(path: Path, kinds: list[Kind], *, reading: Reading) -> Kind | None:
    """The registered source that claims a file or folder; None: it is taken as it stands."""
    if path.is_dir():
        return next(k for k in kinds if k.markers and (path / k.markers[0]).is_file())
    try:
        return kind_of(path, kinds, reading=reading)
    except PermissionError:  # whoever reads it is told
        return None
