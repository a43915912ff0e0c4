"""`Source`: iterates over `Document`s, whatever they are stored in. `open_source` picks the kind.

The kind of a path is told by its name alone, so that what happens is predictable: records (.jsonl,
.parquet), archives (.zip, .whl, .tar.gz, .deb ...), single compressed files (.gz, .zst, .xz), and
everything else as it stands. Sources are only read, one pass, in a deterministic order; nothing is
extracted to disk, no link is followed out of an archive, nothing is executed.
"""

import glob
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bytelm.errors import DataError, unknown_name


@dataclass(frozen=True)
class Document:
    """The bytes of one document and where they came from.

    `meta` may hold: `source` (file read), `path` (name inside it), `group` (what must stay together
    when data is split: a package, a book), `media` (format), and for parts of executables `offset`
    and `address`.
    """

    data: bytes
    meta: dict[str, Any] = field(default_factory=dict)


class Source(ABC):
    """An iterable of documents; iterating again reads again."""

    @abstractmethod
    def __iter__(self) -> Iterator[Document]: ...

    def leaves(self) -> Iterator["Source"]:
        """The sources this one reads in turn: files, as a rule. A build goes on from one of them.

        >>> [len(list(leaf)) for leaf in open_source([MemorySource([b"x"]), ()]).leaves()]
        [1]
        """
        yield self

    def stamp(self) -> str | None:
        """What tells cheaply whether this leaf has changed; None: nothing does."""
        return None


class OneFile(Source):
    """Base of the sources that read one file, at `path`."""

    path: Path

    def stamp(self) -> str:
        """Path, size and time of the last change."""
        found = self.path.stat()
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True)
class FileSource(OneFile):
    """One file as it stands."""

    path: Path
    group: str | None = None

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        yield Document(self.path.read_bytes(), {"source": name, "group": self.group or name})


@dataclass(frozen=True)
class MemorySource(Source):
    """Documents at hand.

    >>> [document.data for document in MemorySource([b"a", b""])]
    [b'a', b'']
    """

    documents: Iterable[bytes]

    def __iter__(self) -> Iterator[Document]:
        for i, data in enumerate(self.documents):
            yield Document(bytes(data), {"source": "memory", "path": str(i), "group": str(i)})


@dataclass(frozen=True)
class ManySource(Source):
    """Several sources, one after the other."""

    sources: tuple[Source, ...]

    def __iter__(self) -> Iterator[Document]:
        for source in self.sources:
            yield from source

    def leaves(self) -> Iterator[Source]:
        for source in self.sources:
            yield from source.leaves()


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    field     JSON or column name of the text of a record (dots go into nested objects)
    group     JSON or column name of what must stay together in a split; None: the record alone
    group_by_folder  files of one folder stay together in a split, rather than each file alone
    raw       take every file as it stands, archives and records too
    sections  executables whole, or cut into sections ("each"), or only those with instructions
    """

    field: str = "text"
    group: str | None = None
    group_by_folder: bool = False
    raw: bool = False
    sections: Literal["whole", "code", "each"] = "whole"

    def __post_init__(self) -> None:
        if self.sections not in _PARTS:
            raise DataError(unknown_name("part of executables", self.sections, _PARTS))


_PARTS = ("whole", "code", "each")


def open_source(spec: object, *, reading: Reading | None = None) -> Source:
    """The source that reads `spec`: a `Source`, a path, a folder, a glob pattern, a list of these,
    or "hf:NAME?split=train&config=en" for a Hugging Face data set.

    A folder is read recursively in sorted order; each file in it by its own kind. Raises
    `DataError` for a path that does not exist, with the nearest name that does.

    >>> [d.data for d in open_source([MemorySource([b"x"]), MemorySource([b"y"])])]
    [b'x', b'y']
    """
    reading = reading or Reading()
    source = _open(spec, reading=reading)
    if reading.sections == "whole":
        return source
    from bytelm.data.sources.executables import SectionSource

    return SectionSource(source, reading.sections)


def _open(spec: object, *, reading: Reading) -> Source:
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, list | tuple):
        return ManySource(tuple(_open(part, reading=reading) for part in spec))
    if not isinstance(spec, str | Path):
        raise DataError(
            f"a source is a path, a Source or a list of them, not {type(spec).__name__}"
        )
    if isinstance(spec, str) and spec.startswith("hf:"):
        from bytelm.data.sources.records import HubSource

        return HubSource.parse(spec, reading=reading)
    return ManySource(tuple(_open_file(p, reading=reading) for p in _files(Path(spec))))


def _files(path: Path) -> list[Path]:
    """The regular files a path, folder or pattern names, sorted."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    if glob.has_magic(str(path)):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if files := [p for p in found if p.is_file()]:
            return files
        raise DataError(f"no file matches {str(path)!r}")
    if path.exists():
        raise DataError(f"{path} is neither a file nor a folder")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{path} does not exist: " + unknown_name("file", path.name, siblings[:1000]))


def _open_file(path: Path, *, reading: Reading) -> Source:
    from bytelm.data.sources import archives, records

    name = path.name.lower()
    file = FileSource(path, group=str(path.parent) if reading.group_by_folder else None)
    if reading.raw:
        return file
    if records.is_records(name):
        return records.RecordSource(path, reading=reading)
    if archives.is_container(name):
        return archives.ArchiveSource(path)
    return file
