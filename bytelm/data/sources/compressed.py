"""Single compressed files (.gz, .bz2, .xz, .lzma, .zst): an archive of one member."""

from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Budget, Members
from bytelm.data.sources.streams import SUFFIXES, decompressed


@dataclass(frozen=True)
class CompressedSource(ArchiveSource):
    """The file behind the compression, called as the compressed one without its last suffix."""

    suffixes = SUFFIXES

    @staticmethod
    def members(stream: IO[bytes], name: str, budget: Budget) -> Members:
        yield name.rpartition(".")[0], budget.read(decompressed(stream, name))
