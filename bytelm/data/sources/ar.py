"""Unix archives: Debian packages and static libraries.

The format has no checksums: what can be told is that every header is where the one before says, and
that symbol tables and tables of names come first. A thin archive (`ar --thin`) holds no members but
their names; it is one document as it stands.
"""

from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Members, Unpacking
from bytelm.data.sources.base import Reading
from bytelm.data.sources.look import Look
from bytelm.data.sources.streams import nearly
from bytelm.errors import DataError

_MAGIC = b"!<arch>\n"
_TABLES = ("/", "//", "/SYM64/", "/<ECSYMBOLS>/")


@dataclass(frozen=True)
class ArSource(ArchiveSource):
    """Members of an `ar` file, System V and BSD long names; symbol tables are passed over."""

    suffixes = (".deb", ".a", ".ar", ".udeb", ".lib")

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        return nearly(look.head, _MAGIC)

    @staticmethod
    def members(stream: IO[bytes], name: str, unpacking: Unpacking) -> Members:
        place = unpacking.place
        if stream.read(8) != _MAGIC:
            raise DataError(f"{place} is not an ar archive: its first bytes are not !<arch>")
        long_names, seen = b"", 0
        offset = 8
        while header := stream.read(60):
            if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
                raise DataError(f"{place} has a broken ar member header at byte {offset}")
            member, size = header[:16].rstrip().decode("latin-1"), int(header[48:58])
            data = _content(stream, size)
            if len(data) < size:
                raise DataError(f"{place} is truncated in member {member} at byte {offset}")
            offset += 60 + size + size % 2
            if member in _TABLES:
                if seen:
                    raise DataError(f"{place} has a table behind members, before byte {offset}")
                long_names = data if member == "//" else long_names
                continue
            seen += 1
            yield _named(member, data, long_names)


def _named(member: str, data: bytes, long_names: bytes) -> tuple[str, bytes]:
    """(name, content) of a member, whose long name may be in its content or in a table."""
    if member.startswith("#1/") and member[3:].isdigit():
        length = int(member[3:])
        return data[:length].rstrip(b"\0").decode("utf-8", "replace"), data[length:]
    if member[:1] == "/" and member[1:].isdigit():
        long_name = long_names[int(member[1:]) :].split(b"/\n")[0].split(b"\0")[0]
        return long_name.decode("utf-8", "replace"), data
    return member.removesuffix("/"), data


def _content(stream: IO[bytes], size: int) -> bytes:
    """The `size` bytes of a member, fewer at the end; reads the padding to an even offset, too."""
    chunks, left = [], size
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        left -= len(chunk)
        chunks.append(chunk)
    stream.read(size % 2)
    return b"".join(chunks)
