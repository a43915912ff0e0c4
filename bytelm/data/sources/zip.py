"""zip files and what is one under another name: wheels, jars, Android packages, .npz.

Every member has a CRC, which is verified. The directory at the end has none, so it is held against
what else is known: it must end the file, hold as many entries as it says, and its first member must
be where the file starts, unless a program that unpacks it stands before.
"""

import lzma
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Members, Unpacking
from bytelm.data.sources.base import Reading
from bytelm.data.sources.look import TAIL, Look
from bytelm.data.sources.streams import nearly
from bytelm.errors import DataError

_MEMBER, _END = b"PK\x03\x04", b"PK\x05\x06"
_UNIX = 3
# What the library raises for damaged files; its own errors are more than BadZipFile.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, IndexError, OverflowError),
)


@dataclass(frozen=True)
class ZipSource(ArchiveSource):
    """The members of a zip file, in the order of its directory; links are noted."""

    suffixes = (".zip", ".whl", ".jar", ".apk", ".npz", ".egg", ".aar", ".war", ".nupkg")

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        return any(nearly(look.head, magic) for magic in (_MEMBER, _END)) or _END in look.tail

    @staticmethod
    def members(stream: IO[bytes], name: str, unpacking: Unpacking) -> Members:
        try:
            archive = zipfile.ZipFile(stream)
            _check_directory(stream, archive.infolist())
        except DataError:
            raise
        except (*_BROKEN, NotImplementedError) as error:
            raise DataError(f"{unpacking.place}: the zip file is damaged ({error})") from error
        with archive:
            for info in archive.infolist():
                if info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16):
                    unpacking.note("link", info.filename)
                    continue
                data = _content(archive, info, unpacking)
                # is_dir() fails on a name of no characters
                if data is not None and (data or not info.filename.endswith("/")):
                    yield info.filename, data


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, unpacking: Unpacking) -> bytes | None:
    """The bytes of a member; None if it cannot be read and that was noted."""
    if info.flag_bits & 1:
        unpacking.problem("encrypted member", info.filename, "it needs a password")
        return None
    try:
        with archive.open(info) as member:
            return unpacking.read(member)
    except DataError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        unpacking.problem("unsupported member", info.filename, error)
    except _BROKEN as error:
        unpacking.problem("damaged member", info.filename, error)
    return None


def _check_directory(stream: IO[bytes], members: list[zipfile.ZipInfo]) -> None:
    """Raise `DataError` unless the directory agrees with the rest of the file."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - TAIL))
    tail = stream.read(TAIL)
    at = tail.rfind(_END)
    if at < 0 or at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
        raise DataError("the zip file is damaged: its directory does not end the file")
    (count,) = struct.unpack_from("<H", tail, at + 10)
    if count != min(len(members), 0xFFFF) and count != len(members) & 0xFFFF:
        raise DataError(
            f"the zip file is damaged: its directory tells of {count} members and has "
            f"{len(members)}"
        )
    stream.seek(0)
    first = min((info.header_offset for info in members), default=0)
    if stream.read(4) == _MEMBER and first != 0:
        raise DataError("the zip file is damaged: its directory leaves out the first member")
