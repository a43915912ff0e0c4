"""What every archive format shares: members read in memory, bounded, nested ones opened too.

Sizes in headers are never believed: every read counts what really comes out, and stops when that
goes beyond `Limits`. Only what has bytes of its own is read; links and devices are noted. Names are
kept as metadata and never used as paths, so a name like ../../etc/passwd is harmless. The formats
are the subclasses of `ArchiveSource` in `bytelm.registry.SOURCES`; an archive inside another is
found there too, if its name claims to be one and its content agrees.
"""

import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, Self, TypeGuard

from bytelm.data.sources.base import Document, OneFile, Reading, Source
from bytelm.data.sources.limits import Budget, LimitError, Limits
from bytelm.data.sources.look import Look
from bytelm.data.sources.notes import Kind
from bytelm.errors import DataError, unknown_name
from bytelm.registry import SOURCES

Members = Iterator[tuple[str, bytes]]  # (name, bytes) in stored order


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Unpacking:
    """What reading the members of one archive needs besides its bytes.

    place    what a message calls the archive: its path, "path!member" of a nested one
    budget   of the whole file, nested archives included
    reading  how sources are read
    """

    place: str
    budget: Budget
    reading: Reading

    def read(self, stream: _Stream) -> bytes:
        """All of a stream, counted; `DataError` as soon as that is more than the limits allow."""
        chunks = []
        while chunk := stream.read(1 << 20):
            self.budget.spend(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def note(self, kind: Kind, member: str) -> None:
        """Report a member that is left out or taken as it stands."""
        self.reading.note(kind, f"{self.place}, member {member}")

    def problem(self, kind: Kind, member: str, error: Exception | str) -> None:
        """`DataError` for a member that cannot be read; noted instead under `skip_errors`."""
        self.reading.problem(kind, f"{self.place}, member {member}", error)


@dataclass(frozen=True)
class ArchiveSource(OneFile):
    """The members of an archive file, those of nested archives included, in stored order.

    A format says which `suffixes` its files have, what its content looks like (`fits`) and how
    `members` are read.
    """

    path: Path
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        return cls(Path(spec), reading)

    @staticmethod
    @abstractmethod
    def members(stream: IO[bytes], name: str, unpacking: Unpacking) -> Members:
        """The members with bytes of their own of one archive called `name`.

        Raises `DataError` for a damaged archive; what cannot be read of a sound one is told to
        `unpacking`.
        """

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        budget = self.reading.budget(name, self.path.stat().st_size)
        inside = _Unpacker(archive_kinds(), Unpacking(name, budget, self.reading))
        try:
            with self.path.open("rb") as stream:
                for member, data in inside.unpack(type(self), stream, self.path.name):
                    yield Document(data, {"source": name, "path": member, "group": name})
        except (DataError, OSError) as error:
            self.reading.problem("damaged file", name, error)


Format = type[ArchiveSource]


def archive_kinds() -> list[Format]:
    """The registered archive formats, in order."""
    return [kind for _, kind in SOURCES.items() if issubclass(kind, ArchiveSource)]


def open_archive(path: Path, *, limits: Limits | None = None) -> ArchiveSource:
    """The members of the archive at `path`, whose format its name tells, within `limits`.

    Raises `DataError` for a name that no archive format claims.
    """
    kind = next((k for k in archive_kinds() if path.name.lower().endswith(k.suffixes)), None)
    if kind is None:
        known = [suffix for format in archive_kinds() for suffix in format.suffixes]
        raise DataError(f"{path}: {unknown_name('kind of archive', path.suffix, known)}")
    return kind(path, Reading(limits=limits or Limits()))


@dataclass(frozen=True)
class _Unpacker:
    """Reads an archive and the archives in it, on one budget."""

    formats: Sequence[Format]
    unpacking: Unpacking
    depth: int = 0

    def unpack(self, kind: Format, stream: IO[bytes], name: str) -> Members:
        """Everything inside an archive; members of nested ones as "nested!member"."""
        unpacking = self.unpacking
        unpacking.budget.check_nesting(self.depth)
        for member, data in kind.members(stream, name, unpacking):
            unpacking.budget.count_member()
            nested, claimed = format_of(
                Look.of_bytes(member, data), self.formats, reading=unpacking.reading
            )
            if nested is None:
                if claimed:
                    unpacking.note("misnamed file", member)
                yield member, data
            else:
                yield from self._nested(nested, member, data)

    def _nested(self, kind: Format, member: str, data: bytes) -> Members:
        outer = self.unpacking
        place = f"{outer.place}!{member}"
        inside = Unpacking(place, outer.budget, outer.reading)
        inner = _Unpacker(self.formats, inside, self.depth + 1)
        try:
            for name, found in inner.unpack(kind, io.BytesIO(data), member):
                yield f"{member}!{name}", found
        except LimitError:
            raise
        except DataError as error:
            outer.reading.problem("damaged member", place, error)


def is_archive(kind: type[Source]) -> TypeGuard[Format]:
    """Whether a source is a format of archives."""
    return issubclass(kind, ArchiveSource)


def format_of(
    look: Look, formats: Sequence[Format], *, reading: Reading
) -> tuple[Format | None, bool]:
    """(the archive format of a file, whether its name claims any).

    One that the name claims and the content fits, else any that the content fits; files whose name
    claims none are never opened.
    """
    name = look.name.lower()
    claimed = [kind for kind in formats if name.endswith(kind.suffixes)]
    if not claimed:
        return None, False
    rest = [kind for kind in formats if kind not in claimed]
    fitting = (kind for kind in (*claimed, *rest) if kind.fits(look, reading=reading))
    return next(fitting, None), True
