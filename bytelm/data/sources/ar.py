"""Unix archives: Debian packages and static libraries."""

from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Budget, Members
from bytelm.errors import DataError


@dataclass(frozen=True)
class ArSource(ArchiveSource):
    """Members of an `ar` file, System V and BSD long names; symbol tables are passed over."""

    suffixes = (".deb", ".a", ".ar", ".udeb", ".lib")

    @staticmethod
    def members(stream: IO[bytes], name: str, budget: Budget) -> Members:
        if stream.read(8) != b"!<arch>\n":
            raise DataError(f"{budget.name} is not an ar archive: its first bytes are not !<arch>")
        long_names = b""
        while header := stream.read(60):
            if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
                raise DataError(f"{budget.name} has a broken ar member header")
            member, size = header[:16].rstrip().decode("latin-1"), int(header[48:58])
            data = _content(stream, member, size, budget)
            if member == "//":
                long_names = data
            elif member.startswith("#1/") and member[3:].isdigit():
                length = int(member[3:])
                yield data[:length].rstrip(b"\0").decode("utf-8", "replace"), data[length:]
            elif member[:1] == "/" and member[1:].isdigit():
                long_name = long_names[int(member[1:]) :].split(b"/\n")[0]
                yield long_name.decode("utf-8", "replace"), data
            elif member not in ("/", "/SYM64/"):
                yield member.removesuffix("/"), data


def _content(stream: IO[bytes], member: str, size: int, budget: Budget) -> bytes:
    """The `size` bytes of a member; reads the padding to an even offset, too."""
    if size > budget.limits.member_bytes:
        raise DataError(f"{budget.name}: member {member} has {size} bytes")
    data = stream.read(size)
    if len(data) < size:
        raise DataError(f"{budget.name} is truncated in member {member}")
    budget.spend(size)
    stream.read(size % 2)
    return data
