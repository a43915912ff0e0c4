"""`Source`: iterates over `Document`s, whatever they are stored in.

Sources are only read, one pass, in a deterministic order; nothing is extracted to disk, no link is
followed out of an archive, nothing is executed. A class that is registered in
`bytelm.registry.SOURCES` says which paths it reads: by `scheme` ("hf:..."), by `suffixes` of the
file name, or by `magic` numbers, and is made by its `open`. All of ours go by the name alone, so
that what happens is predictable.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from bytelm.data.sources.document import Document as Document
from bytelm.data.sources.document import file_document
from bytelm.data.sources.limits import Budget, Limits
from bytelm.data.sources.look import Look
from bytelm.data.sources.notes import Kind, Notes
from bytelm.data.sources.spelling import Spelling
from bytelm.errors import DataError, unknown_name


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    field     JSON or column name of the text of a record (dots go into nested objects)
    group     JSON or column name of what must stay together in a split; None: the record alone
    columns   JSON or column names of what is kept with each record, as text: labels, languages
    limits    what a file may unpack to
    strict    whatever would be noted (a link, a file that is not what its name says) is an error
    skip_errors  whatever would be an error (a damaged file or record) is left out and noted
    notes     collects what was left out or taken otherwise than its name says; no setting
    spelling  how messages name these settings: as options, or as settings of a recipe; no setting
    group_by_folder  files of one folder stay together in a split, rather than each file alone
    raw       take every file as it stands, archives and records too
    sections  executables whole, or cut into sections ("each"), or only those with instructions

    Raises `DataError` for an unknown value of `sections`, for columns that have the name of
    something every document has, and for `strict` together with `skip_errors`.

    >>> reading = Reading()
    >>> reading.note("link", "folder/up")
    >>> reading.notes.lines()
    ['skipped 1 link: folder/up']
    """

    field: str = "text"
    group: str | None = None
    group_by_folder: bool = False
    raw: bool = False
    sections: Literal["whole", "code", "each"] = "whole"
    columns: tuple[str, ...] = ()
    limits: Limits = dataclasses.field(default_factory=Limits)
    strict: bool = False
    skip_errors: bool = False
    notes: Notes = dataclasses.field(default_factory=Notes, compare=False, repr=False)
    spelling: Spelling = dataclasses.field(default_factory=Spelling, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.strict and self.skip_errors:
            raise DataError("strict makes notes errors, skip_errors errors notes: choose one")
        if self.sections not in _PARTS:
            raise DataError(unknown_name("part of executables", self.sections, _PARTS))
        if taken := [name for name in self.columns if name in STANDARD_COLUMNS]:
            raise DataError(
                f"the column {taken[0]!r} is one that every document has (these are "
                f"{', '.join(STANDARD_COLUMNS)}): rename it in the records"
            )

    def note(self, kind: Kind, place: str, *, why: str = "") -> None:
        """Report something that is left out or taken as it stands; `DataError` if `strict`."""
        told = f"{place}: {why}" if why else place
        if self.strict:
            raise DataError(f"{self.spelling.switch('strict')}: {kind} at {told}")
        self.notes.add(kind, told)

    def problem(self, kind: Kind, place: str, error: Exception | str) -> None:
        """Raise `DataError` for something that cannot be read, or note it if `skip_errors`."""
        told = str(error) if str(error).startswith(place) else f"{place}: {error}"
        if not self.skip_errors:
            skip = self.spelling.switch("skip_errors")
            raise DataError(told if skip in told else f"{told}. {skip} leaves it out")
        self.notes.add(kind, told)

    def budget(self, name: str, size: int | None) -> Budget:
        """What a file of `size` bytes, called `name`, may unpack to."""
        return Budget(self.limits, size, name, self.spelling)

    def names(self) -> list[tuple[str, str]]:
        """(field of records that is read, the setting that names it).

        >>> Reading(columns=("kind",)).names()
        [('text', 'field'), ('kind', 'column')]
        """
        group = [] if self.group is None else [(self.group, "group")]
        return [(self.field, "field"), *group, *((name, "column") for name in self.columns)]

    def settings(self) -> dict[str, Any]:
        """What the documents depend on, for JSON; what is as by default since earlier versions,
        which did not know it, is left out."""
        beside = ("notes", "spelling")
        kept = {name: value for name, value in asdict(self).items() if name not in beside}
        for name in ("columns", "limits", "strict", "skip_errors"):
            if getattr(self, name) == getattr(Reading(), name):
                del kept[name]
        return kept


_PARTS = ("whole", "code", "each")
STANDARD_COLUMNS = (
    *("source", "path", "folder", "group", "media", "sha256"),
    *("offset", "address", "length"),
)


class Source(ABC):
    """An iterable of documents; iterating again reads again."""

    scheme: ClassVar[str] = ""  # "hf": reads what is spelt "hf:..."
    suffixes: ClassVar[tuple[str, ...]] = ()  # of file names, in lower case
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()  # (offset, bytes) at the head of a file
    markers: ClassVar[tuple[str, ...]] = ()  # files of a folder that is one source; the first tells

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        """The source that reads `spec`: a path, or the whole "scheme:..." text.

        Called for registered classes only. Raises `DataError` for a `spec` it cannot read.
        """
        raise NotImplementedError(f"{cls.__name__} is not opened by name")

    @classmethod
    def fits(cls, look: Look, *, reading: "Reading") -> bool:
        """Whether the content of a file is what the `suffixes` say; by default names are believed.

        Also true if it must have been so before it was damaged, so that reading it is an error.
        """
        return look.name.lower().endswith(cls.suffixes)

    @abstractmethod
    def __iter__(self) -> Iterator[Document]: ...

    def leaves(self) -> Iterator["Source"]:
        """The sources this one reads in turn: files, as a rule. A build resumes at one of them.

        >>> [len(list(leaf)) for leaf in ManySource((MemorySource([b"x"]),)).leaves()]
        [1]
        """
        yield self

    def stamp(self) -> str | None:
        """What tells cheaply whether this leaf has changed; None: nothing does."""
        return None

    def least_bytes(self) -> int:
        """Bytes that its documents have at least, as far as that is known before reading."""
        return 0


class OneFile(Source):
    """Base of the sources that read one file, at `path`."""

    path: Path

    def stamp(self) -> str:
        """Path, size in bytes and time of the last change in nanoseconds."""
        found = self.path.stat()
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True)
class FileSource(OneFile):
    """One file as it stands."""

    path: Path
    group: str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        try:
            found = file_document(
                self.path, {"source": name, "group": self.group or self.path.name}
            )
        except OSError as error:
            self.reading.problem("unreadable file", name, error.strerror or error)
            return
        yield found

    def least_bytes(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class PlacedSource(Source):
    """The documents of `source`, a file called `name` relative to what was opened.

    A group that is named after the file is named after its place instead, so that a split does not
    depend on how the path to it was spelt. `named`: the file itself was opened, and no folder.
    What the system refuses to read is a problem of `reading`.
    """

    source: Source
    name: str
    named: bool = False
    reading: Reading = field(default_factory=Reading)

    def __iter__(self) -> Iterator[Document]:
        try:
            yield from self._documents()
        except OSError as error:
            place = str(getattr(self.source, "path", self.name))
            self.reading.problem("unreadable file", place, error.strerror or str(error))

    def _documents(self) -> Iterator[Document]:
        for document in self.source:
            changes = {"group": self._group(document)}
            if not self.named:
                inner = document.meta.get("path")
                changes["path"] = self.name if inner is None else f"{self.name}!{inner}"
            yield document.with_meta(**changes)

    def _group(self, document: Document) -> str:
        group, source = (str(document.meta.get(key) or "") for key in ("group", "source"))
        return self.name + group[len(source) :] if group.startswith(source) else group

    def stamp(self) -> str | None:
        return self.source.stamp()

    def least_bytes(self) -> int:
        return self.source.least_bytes()


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

    def least_bytes(self) -> int:
        return sum(source.least_bytes() for source in self.sources)
