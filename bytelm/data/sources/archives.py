"""Members of archives and single compressed files, read in memory and bounded.

Formats: zip and its relatives (.whl, .jar, .apk, .npz), tar with any compression, `ar` and .deb,
and plain .gz/.bz2/.xz/.zst streams. Sizes in headers are never believed: every read counts what
really comes out, and stops when a member, the whole archive, the ratio of bytes out to bytes in, or
the nesting goes beyond `Limits`. Only regular members are read; links and devices are passed over.
Names are kept as metadata and never used as paths, so a name like ../../etc/passwd is harmless.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from bytelm.data.sources.base import Document, OneFile
from bytelm.data.sources.streams import BROKEN, SUFFIXES, decompressed
from bytelm.errors import DataError

_ZIP = (".zip", ".whl", ".jar", ".apk", ".npz", ".egg", ".aar", ".war", ".nupkg")
_TAR = (".tar", ".tgz", ".tbz2", ".txz", ".crate", ".gem", ".whl.tar")
_AR = (".deb", ".a", ".ar", ".udeb", ".lib")
_BROKEN = (
    *BROKEN,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,  # zipfile: a compression method it does not know
    RuntimeError,  # zipfile: an encrypted member
    UnicodeDecodeError,
)


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
class _Budget:
    """What has come out so far, of an archive of `size` bytes."""

    limits: Limits
    size: int
    name: str
    out: int = 0
    members: int = 0

    def read(self, stream: _Stream) -> bytes:
        """All of a stream, as long as the budget lasts."""
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

    def member(self) -> None:
        """Count a member; `DataError` when they are too many."""
        self.members += 1
        if self.members > self.limits.members:
            self._refuse(f"it has more than {self.limits.members} members")

    def _refuse(self, why: str) -> None:
        raise DataError(f"{self.name} is refused as an archive bomb: {why}")


@dataclass(frozen=True)
class ArchiveSource(OneFile):
    """The members of an archive file, those of nested archives included, in stored order."""

    path: Path
    limits: Limits = field(default_factory=Limits)

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        budget = _Budget(self.limits, self.path.stat().st_size, name)
        try:
            with self.path.open("rb") as stream:
                for member, data in _unpack(stream, self.path.name, budget=budget, depth=0):
                    meta = {"source": name, "path": member, "group": name}
                    yield Document(data, meta)
        except _BROKEN as error:
            raise DataError(f"{name} cannot be read as an archive: {error}") from error


def is_container(name: str) -> bool:
    """Whether files of this name are opened rather than taken as they stand."""
    return name.lower().endswith((*_ZIP, *_TAR, *_AR, *SUFFIXES))


def _unpack(
    stream: IO[bytes], name: str, *, budget: _Budget, depth: int
) -> Iterator[tuple[str, bytes]]:
    """(member name, bytes) of everything inside an archive called `name`."""
    if depth > budget.limits.depth:
        raise DataError(f"{budget.name} is refused: archives nested deeper than {depth - 1}")
    lower = name.lower()
    stem, _, suffix = lower.rpartition(".")
    if lower.endswith(_ZIP):
        members = _zip_members(stream, budget)
    elif lower.endswith(_AR):
        members = _ar_members(stream, budget)
    elif lower.endswith(_TAR) or (f".{suffix}" in SUFFIXES and stem.endswith(".tar")):
        members = _tar_members(decompressed(stream, lower), budget)
    else:
        data = budget.read(decompressed(stream, lower))
        members = iter([(name[: -len(suffix) - 1], data)])
    for member, data in members:
        budget.member()
        if is_container(member):
            inside = _unpack(io.BytesIO(data), member, budget=budget, depth=depth + 1)
            for inner, inner_data in inside:
                yield f"{member}!{inner}", inner_data
        else:
            yield member, data


def _zip_members(stream: IO[bytes], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if not info.filename.endswith("/"):  # is_dir() fails on a name of no characters
                with archive.open(info) as member:
                    yield info.filename, budget.read(member)


class _Counted(io.RawIOBase):
    """A stream that counts what is read from it: tar skips members by reading them."""

    def __init__(self, stream: IO[bytes], budget: _Budget):
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._budget.spend(len(data))
        return data


def _tar_members(stream: IO[bytes], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    counted = _Counted(stream, budget)
    with tarfile.open(fileobj=counted, mode="r|") as archive:  # type: ignore[call-overload]
        for info in archive:
            if not info.isreg() or info.issparse():
                continue
            if info.size > budget.limits.member_bytes:
                raise DataError(f"{budget.name}: member {info.name} has {info.size} bytes")
            member = archive.extractfile(info)
            assert member is not None, "a regular member has content"
            yield info.name, member.read()


def _ar_members(stream: IO[bytes], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """Members of a Unix archive, System V and BSD long names; symbol tables are passed over."""
    if stream.read(8) != b"!<arch>\n":
        raise DataError(f"{budget.name} is not an ar archive: its first bytes are not !<arch>")
    long_names = b""
    while header := stream.read(60):
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise DataError(f"{budget.name} has a broken ar member header")
        name, size = header[:16].rstrip().decode("latin-1"), int(header[48:58])
        if size > budget.limits.member_bytes:
            raise DataError(f"{budget.name}: member {name} has {size} bytes")
        data = stream.read(size)
        if len(data) < size:
            raise DataError(f"{budget.name} is truncated in member {name}")
        budget.spend(size)
        stream.read(size % 2)
        if name == "//":
            long_names = data
        elif name.startswith("#1/") and name[3:].isdigit():
            length = int(name[3:])
            yield data[:length].rstrip(b"\0").decode("utf-8", "replace"), data[length:]
        elif name[:1] == "/" and name[1:].isdigit():
            yield long_names[int(name[1:]) :].split(b"/\n")[0].decode("utf-8", "replace"), data
        elif name not in ("/", "/SYM64/"):
            yield name.removesuffix("/"), data
