"""What every archive format shares: members read in memory, bounded, nested ones opened too.

Sizes in headers are never believed: every read counts what really comes out, and stops when a
member, the whole archive, the ratio of bytes out to bytes in, or the nesting goes beyond `Limits`.
Only regular members are read; links and devices are passed over. Names are kept as metadata and
never used as paths, so a name like ../../etc/passwd is harmless. The formats are the subclasses of
`ArchiveSource` in `bytelm.registry.SOURCES`; an archive inside another is found there too.
"""

import io
import tarfile
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, Self

from bytelm.data.sources.base import Document, OneFile, Reading
from bytelm.data.sources.streams import BROKEN
from bytelm.errors import DataError, unknown_name
from bytelm.registry import SOURCES

_BROKEN = (
    *BROKEN,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,  # zipfile: a compression method it does not know
    RuntimeError,  # zipfile: an encrypted member
    UnicodeDecodeError,
)

Members = Iterator[tuple[str, bytes]]  # (name, bytes) in stored order


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may unpack to before it is refused as a bomb.

    `ratio` counts from the first `slack` bytes out on, since short runs of zeros are ordinary.
    """

    member_bytes: int = 1 << 30
    total_bytes: int = 64 << 30
    members: int = 1_000_000
    ratio: float = 200.0
    slack: int = 64 << 20
    depth: int = 4


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass
class Budget:
    """What has come out so far, of an archive called `name` of `size` bytes."""

    limits: Limits
    size: int
    name: str
    out: int = 0
    members: int = 0

    def read(self, stream: _Stream) -> bytes:
        """All of a stream; `DataError` as soon as that is more than the limits allow."""
        chunks, length = [], 0
        while chunk := stream.read(1 << 20):
            length += len(chunk)
            self.spend(len(chunk))
            if length > self.limits.member_bytes:
                self._refuse(f"a member is larger than {self.limits.member_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def spend(self, count: int) -> None:
        """Count bytes that came out; `DataError` when they are too many."""
        self.out += count
        if self.out > self.limits.total_bytes:
            self._refuse(f"it holds more than {self.limits.total_bytes} bytes")
        if self.out > max(self.limits.slack, self.limits.ratio * self.size):
            self._refuse(f"its {self.size} bytes unpack to more than {self.limits.ratio:g} times")

    def count_member(self) -> None:
        """Count a member; `DataError` when they are too many."""
        self.members += 1
        if self.members > self.limits.members:
            self._refuse(f"it has more than {self.limits.members} members")

    def _refuse(self, why: str) -> None:
        raise DataError(f"{self.name} is refused as an archive bomb: {why}")


@dataclass(frozen=True)
class ArchiveSource(OneFile):
    """The members of an archive file, those of nested archives included, in stored order.

    A format says which `suffixes` its files have and how `members` are read.
    """

    path: Path
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        return cls(Path(spec))

    @staticmethod
    @abstractmethod
    def members(stream: IO[bytes], name: str, budget: Budget) -> Members:
        """The regular members of one archive called `name`, whose bytes `budget` counts.

        Raises `DataError`, or what the library behind it raises for damaged files (`_BROKEN`).
        """

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        budget = Budget(self.limits, self.path.stat().st_size, name)
        inside = _Unpacker(archive_kinds(), budget)
        try:
            with self.path.open("rb") as stream:
                for member, data in inside.unpack(type(self), stream, self.path.name, depth=0):
                    yield Document(data, {"source": name, "path": member, "group": name})
        except _BROKEN as error:
            raise DataError(f"{name} cannot be read as an archive: {error}") from error


Format = type[ArchiveSource]


def archive_kinds() -> list[Format]:
    """The registered archive formats, in order."""
    return [kind for _, kind in SOURCES.items() if issubclass(kind, ArchiveSource)]


def open_archive(path: Path, *, limits: Limits | None = None) -> ArchiveSource:
    """The members of the archive at `path`, whose format its name tells, within `limits`.

    Raises `DataError` for a name that no archive format claims.
    """
    kind = _format_of(path.name, archive_kinds())
    if kind is None:
        known = [suffix for format in archive_kinds() for suffix in format.suffixes]
        raise DataError(f"{path}: {unknown_name('kind of archive', path.suffix, known)}")
    return kind(path, limits or Limits())


def _format_of(name: str, formats: Sequence[Format]) -> Format | None:
    return next((kind for kind in formats if name.lower().endswith(kind.suffixes)), None)


@dataclass(frozen=True)
class _Unpacker:
    """Reads an archive and the archives in it, on one budget."""

    formats: Sequence[Format]
    budget: Budget

    def unpack(self, kind: Format, stream: IO[bytes], name: str, *, depth: int) -> Members:
        """Everything inside an archive; members of nested ones as "nested!member"."""
        if depth > self.budget.limits.depth:
            raise DataError(
                f"{self.budget.name} is refused: archives nested deeper than {depth - 1}"
            )
        for member, data in kind.members(stream, name, self.budget):
            self.budget.count_member()
            nested = _format_of(member, self.formats)
            if nested is None:
                yield member, data
                continue
            for inner, inside in self.unpack(nested, io.BytesIO(data), member, depth=depth + 1):
                yield f"{member}!{inner}", inside
