"""tar files in any compression: source archives, Rust crates, Ruby gems, layers of a .deb."""

import io
import tarfile
from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Budget, Members
from bytelm.data.sources.streams import SUFFIXES, decompressed
from bytelm.errors import DataError


@dataclass(frozen=True)
class TarSource(ArchiveSource):
    """The regular members of a tar file; links, devices and sparse files are passed over."""

    suffixes = (
        *(".tar", ".tgz", ".tbz2", ".txz", ".crate", ".gem", ".whl.tar"),
        *(f".tar{suffix}" for suffix in SUFFIXES),
    )

    @staticmethod
    def members(stream: IO[bytes], name: str, budget: Budget) -> Members:
        counted = _Counted(decompressed(stream, name), budget)
        with tarfile.open(fileobj=counted, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                if not info.isreg() or info.issparse():
                    continue
                if info.size > budget.limits.member_bytes:
                    raise DataError(f"{budget.name}: member {info.name} has {info.size} bytes")
                member = archive.extractfile(info)
                assert member is not None, "a regular member has content"
                yield info.name, member.read()


class _Counted(io.RawIOBase):
    """A stream that counts what is read from it: tar skips members by reading them."""

    def __init__(self, stream: IO[bytes], budget: Budget):
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._budget.spend(len(data))
        return data
