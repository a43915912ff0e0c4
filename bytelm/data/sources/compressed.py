"""Single compressed files (.gz, .bz2, .xz, .lzma, .zst): an archive of one member."""

from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Members, Unpacking
from bytelm.data.sources.base import Reading
from bytelm.data.sources.look import HEAD, Look
from bytelm.data.sources.streams import SUFFIXES, compression_of, decompressed
from bytelm.errors import DataError


@dataclass(frozen=True)
class CompressedSource(ArchiveSource):
    """The file behind the compression, called as the compressed one without its last suffix."""

    suffixes = SUFFIXES

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        return compression_of(look.head, look.name) is not None

    @staticmethod
    def members(stream: IO[bytes], name: str, unpacking: Unpacking) -> Members:
        compression = compression_of(stream.read(HEAD), name)
        stream.seek(0)
        if compression is None:
            raise DataError(f"{unpacking.place} is no compressed file of a known kind")
        packed = decompressed(stream, compression, unpacking.budget)
        yield unpacked_name(name), b"".join(iter(lambda: packed.read(1 << 20), b""))


def unpacked_name(name: str) -> str:
    """The name without the suffix of its compression.

    >>> unpacked_name("a.txt.gz"), unpacked_name("b.tgz"), unpacked_name("c.crate")
    ('a.txt', 'b.tar', 'c.crate')
    """
    stem, _, suffix = name.rpartition(".")
    if suffix.lower() in ("tgz", "tbz2", "txz"):
        return f"{stem}.tar"
    return stem if f".{suffix.lower()}" in SUFFIXES else name
