"""`open_source`: the source that reads a path, a folder, a pattern or a "scheme:..." text.

Registered sources (`bytelm.registry.SOURCES`) are asked in order, ours first: a scheme, then the
name and content of the file (kinds.py). What nobody claims is one document as it stands.
"""

import glob
from pathlib import Path

from bytelm.data.sources.base import FileSource, ManySource, PlacedSource, Reading, Source
from bytelm.data.sources.executables import SectionSource
from bytelm.data.sources.kinds import kind_of
from bytelm.errors import DataError, unknown_name
from bytelm.registry import SOURCES

Kind = type[Source]


def open_source(spec: object, *, reading: Reading | None = None) -> Source:
    """The source that reads `spec`: a `Source`, a path, a folder, a glob pattern, a list of these,
    or "hf:NAME?split=train&config=en" for a Hugging Face data set.

    A folder is read recursively in sorted order; each file in it by its own kind. Raises
    `DataError` for a path that does not exist, with the nearest name that does.

    >>> from bytelm.data.sources import MemorySource
    >>> [d.data for d in open_source([MemorySource([b"x"]), MemorySource([b"y"])])]
    [b'x', b'y']
    """
    reading = reading or Reading()
    kinds = [kind for _, kind in SOURCES.items()]
    source = _open(spec, kinds=kinds, reading=reading)
    return (
        source if reading.sections == "whole" else SectionSource(source, reading.sections, reading)
    )


def _open(spec: object, *, kinds: list[Kind], reading: Reading) -> Source:
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, list | tuple):
        return ManySource(tuple(_open(part, kinds=kinds, reading=reading) for part in spec))
    if not isinstance(spec, str | Path):
        raise DataError(
            f"a source is a path, a Source or a list of them, not {type(spec).__name__}"
        )
    scheme = spec.partition(":")[0] if isinstance(spec, str) and ":" in spec else ""
    for kind in kinds:
        if scheme and kind.scheme == scheme:
            return kind.open(spec, reading=reading)
    files, root = list_files(Path(spec))
    found = (_open_file(path, root=root, kinds=kinds, reading=reading) for path in files)
    return ManySource(tuple(found))


def list_files(path: Path) -> tuple[list[Path], Path | None]:
    """(regular files, sorted; the folder they are placed in) of a path, folder or pattern.

    The folder of a pattern is its part before the first part with a wildcard; a single file has
    none. Raises `DataError` if there is no file.
    """
    if path.is_file():
        return [path], None
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file()), path
    if glob.has_magic(str(path)):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if files := [p for p in found if p.is_file()]:
            return files, fixed_folder(path)
        raise DataError(f"no file matches {str(path)!r}")
    raise missing(path)


def fixed_folder(pattern: Path) -> Path:
    """The part of a glob pattern before the first part with a wildcard.

    >>> fixed_folder(Path("data/*/*.txt")).as_posix(), fixed_folder(Path("*.txt")).as_posix()
    ('data', '.')
    """
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def missing(path: Path) -> DataError:
    """The error for a path at which there is no file, with the nearest name beside it."""
    if path.exists():
        return DataError(f"{path} is neither a file nor a folder")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return DataError(f"{path} does not exist: " + unknown_name("file", path.name, siblings[:1000]))


def _open_file(path: Path, *, root: Path | None, kinds: list[Kind], reading: Reading) -> Source:
    kind = kind_of(path, kinds, reading=reading)
    if kind is None:
        source: Source = FileSource(path, str(path.parent) if reading.group_by_folder else None)
    else:
        source = kind.open(path, reading=reading)
    return source if root is None else PlacedSource(source, path.relative_to(root).as_posix())
