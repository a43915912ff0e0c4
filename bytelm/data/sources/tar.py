"""tar files in any compression: source archives, Rust crates, Ruby gems, layers of a .deb.

The library's reader takes a damaged header, or the end of the file, for the end of the archive, and
reads only the first of several that were joined (`cat a.tar b.tar`). Here only two blocks of zeros
end an archive, behind which nothing but zeros or a further archive may come; everything else is an
error that names the byte. Headers have a checksum, contents have none: damage to them (and to the
names and sizes that extended headers hold as contents) cannot be told.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from bytelm.data.sources.archives import ArchiveSource, Members, Unpacking
from bytelm.data.sources.base import Reading
from bytelm.data.sources.limits import Budget, Limits
from bytelm.data.sources.look import HEAD, Look
from bytelm.data.sources.sparse_tar import SparseMap, expand, map_in_content, map_in_header
from bytelm.data.sources.streams import SUFFIXES, compression_of, decompressed, nearly
from bytelm.errors import DataError

BLOCK = 512
_PLAIN = (".tar", ".gem")
_OTHERS = (b"PK\x03\x04", b"PK\x05\x06", b"!<arch>\n")  # archives that may be shorter than a block
_ZEROS = bytes(BLOCK)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_LABEL, _DUMPED_FOLDER, _CONTINUED = b"V", b"D", b"M"  # of GNU tar
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}

Records = dict[str, list[bytes]]  # of extended headers: key -> values, the last of which counts


@dataclass(frozen=True)
class TarSource(ArchiveSource):
    """The regular members of a tar file, sparse ones with their holes; links are noted."""

    suffixes = (
        *(".tar", ".tgz", ".tbz2", ".txz", ".crate", ".gem", ".whl.tar"),
        *(f".tar{suffix}" for suffix in SUFFIXES),
    )

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        compression = compression_of(look.head, look.name)
        if compression is None:
            named = look.name.lower().endswith(_PLAIN)
            return is_tar(look.head) or (named and look.cut and _is_cut(look.head))
        with look.open() as stream:
            try:
                return is_tar(decompressed(stream, compression, _unlimited(look.name)).read(HEAD))
            except DataError:
                return look.name.lower().endswith(cls.suffixes)  # reading it says what is wrong

    @staticmethod
    def members(stream: IO[bytes], name: str, unpacking: Unpacking) -> Members:
        compression = compression_of(stream.read(HEAD), name)
        stream.seek(0)
        if compression is not None:
            stream = decompressed(stream, compression, unpacking.budget)
        yield from _Reader(stream, unpacking).members()


def _unlimited(name: str) -> Budget:
    return Budget(Limits(), None, name)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with `head` is a tar file, or was one before it was damaged.

    >>> is_tar(tarfile.TarInfo("a").tobuf()), is_tar(b"text " * 200), is_tar(bytes(1024))
    (True, False, True)
    """
    marked = nearly(head[257:262].ljust(1), b"ustar")
    return marked or _is_header(head[:BLOCK]) or head == bytes(HEAD)


def _is_cut(head: bytes) -> bool:
    """Whether a short file may be the beginning of a tar file: a name, which zeros follow."""
    short = 0 < len(head) < BLOCK and not head.startswith(_OTHERS)
    return short and (len(head) < 100 or b"\0" in head)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Reader:
    """Reads one tar file, or several that are joined, from front to back."""

    def __init__(self, stream: IO[bytes], unpacking: Unpacking):
        self._stream, self._unpacking = stream, unpacking
        self._offset = 0  # bytes read
        self._global: Records = {}

    def members(self) -> Members:
        for info, records in self._headers():
            name, size = _name(info, records), _size(info, records)
            if size < 0:
                raise self._error("a member has a negative size")
            kind = info.type
            if kind in _LINKS:
                self._unpacking.note("link", name)
            elif kind in _DEVICES:
                self._unpacking.note("device", name)
            elif kind == _CONTINUED:
                self._content(size)
                self._unpacking.problem(
                    "unsupported member", name, "it continues one of another volume"
                )
            elif kind == _DUMPED_FOLDER:
                self._content(size)
            elif kind not in (tarfile.DIRTYPE, _LABEL):
                yield name, self._file(info, records, size)

    def _file(self, info: tarfile.TarInfo, records: Records, size: int) -> bytes:
        header = self._header if info.type == tarfile.GNUTYPE_SPARSE else None
        try:
            found: SparseMap | None = None
            if header is not None:
                found = map_in_header(header, lambda: self._read(BLOCK))
            elif "GNU.sparse.map" in records or "GNU.sparse.offset" in records:
                found = map_in_header(records, None)
            data = self._content(size)
            if records.get("GNU.sparse.major", [b""])[-1] == b"1":
                found, data = map_in_content(records, data)
            if found is None:
                return data
            self._unpacking.budget.spend(max(0, found.size - size))
            return expand(found, data)
        except DataError:
            raise
        except (ValueError, tarfile.TarError) as error:
            raise self._error(f"a sparse member cannot be read ({error})") from error

    def _headers(self) -> Iterator[tuple[tarfile.TarInfo, Records]]:
        """(header, extended records that belong to it) of each member."""
        records: Records = {}
        while (info := self._next()) is not None:
            if info.type in _LONG:
                value = self._content(info.size).rstrip(b"\0")
                records.setdefault(_LONG[info.type], []).append(value)
            elif info.type in _EXTENDED:
                try:
                    found = _records(self._content(info.size))
                except ValueError as error:
                    raise self._error(f"an extended header is damaged ({error})") from error
                whole = info.type == tarfile.XGLTYPE
                self._global.update(found) if whole else records.update(found)
            else:
                yield info, {**self._global, **records}
                records = {}
        if records:
            raise self._error("it ends behind an extended header, before its member")

    def _next(self) -> tarfile.TarInfo | None:
        """The next header; None at the end of the last archive."""
        zeros = 0
        while True:
            block = self._read_some(BLOCK)
            if not block or (zeros and not block.strip(b"\0") and len(block) < BLOCK):
                if zeros:
                    return None
                empty = self._offset == 0
                raise self._error("it is empty" if empty else "it is cut short: no end mark")
            if block == _ZEROS:
                zeros += 1
                continue
            if zeros == 1:
                raise self._error("something follows a lone block of zeros")
            self._header = block
            try:
                return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                after = " behind the end of the archive" if zeros else ""
                raise self._error(f"the header{after} is damaged ({error})", back=BLOCK) from error

    def _content(self, size: int) -> bytes:
        """The content of a member; reads the padding, too."""
        data = self._read(size)
        self._read(-size % BLOCK)
        return data

    def _read(self, size: int) -> bytes:
        data = self._read_some(size)
        if len(data) < size:
            raise self._error("it is cut short inside a member")
        return data

    def _read_some(self, size: int) -> bytes:
        chunks = []
        while size > 0 and (chunk := self._stream.read(min(size, 1 << 20))):
            size -= len(chunk)
            self._offset += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def _error(self, why: str, back: int = 0) -> DataError:
        at = max(0, self._offset - back)
        return DataError(f"{self._unpacking.place}: {why}, at byte {at} of the tar file")


def _records(data: bytes) -> Records:
    """The records "length key=value\\n" of an extended header.

    >>> _records(b"12 path=abc\\n")
    {'path': [b'abc']}
    """
    found: Records = {}
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        length = data[at : at + 20].partition(b" ")[0]
        if not length.isdigit() or not 5 <= int(length) <= end - at:
            raise ValueError(f"a record has the length {length!r}")
        record = data[at + len(length) + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ValueError("a record is not key=value")
        found.setdefault(key.decode("utf-8", "surrogateescape"), []).append(value[:-1])
        at += int(length)
    return found


def _name(info: tarfile.TarInfo, records: Records) -> str:
    for key in ("GNU.sparse.name", "path"):
        if key in records:
            return records[key][-1].decode("utf-8", "surrogateescape")
    return info.name


def _size(info: tarfile.TarInfo, records: Records) -> int:
    if "size" not in records:
        return info.size
    text = records["size"][-1]
    return int(text) if text.isdigit() else -1
