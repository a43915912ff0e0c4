"""Sparse members of tar files (`tar -S`): where their stored pieces lie between holes of zeros.

GNU tar has four ways to write the map: in the header and blocks that follow it (its old format), in
extended records as pairs (0.0) or as one list (0.1), and at the start of the content (1.0).
"""

from collections.abc import Callable
from dataclasses import dataclass

_BLOCK = 512


@dataclass(frozen=True)
class SparseMap:
    """`size` bytes in all; the `pieces` (offset, length) of them are stored one after the other."""

    size: int
    pieces: tuple[tuple[int, int], ...]


def map_in_header(
    header: bytes | dict[str, list[bytes]], more: Callable[[], bytes] | None
) -> SparseMap:
    """The map of the old format, from a header block (`more` reads the blocks that continue it), or
    of the formats 0.0 and 0.1, from extended records. Raises `ValueError` for a damaged one."""
    if isinstance(header, bytes):
        assert more is not None, "the old format goes on in further blocks"
        pieces = _entries(header[386:482])
        size, extended = _number(header[483:495]), header[482]
        while extended:
            block = more()
            pieces += _entries(block[:504])
            extended = block[504]
        return SparseMap(size, tuple(pieces))
    size = int(_last(header, "GNU.sparse.size", "GNU.sparse.realsize"))
    if "GNU.sparse.map" in header:
        numbers = [int(text) for text in header["GNU.sparse.map"][-1].split(b",") if text]
        offsets, lengths = numbers[::2], numbers[1::2]
    else:
        offsets = [int(text) for text in header["GNU.sparse.offset"]]
        lengths = [int(text) for text in header["GNU.sparse.numbytes"]]
    return SparseMap(size, tuple(zip(offsets, lengths, strict=True)))


def map_in_content(records: dict[str, list[bytes]], data: bytes) -> tuple[SparseMap, bytes]:
    """(map, stored pieces) of format 1.0. Raises `ValueError` for a damaged one."""
    at = 0

    def number() -> int:
        nonlocal at
        end = data.index(b"\n", at)
        value, at = int(data[at:end]), end + 1
        return value

    pieces = tuple((number(), number()) for _ in range(number()))
    size = int(_last(records, "GNU.sparse.realsize", "GNU.sparse.size"))
    return SparseMap(size, pieces), data[at + -at % _BLOCK :]


def expand(found: SparseMap, data: bytes) -> bytes:
    """The member with its holes. Raises `ValueError` if map and stored bytes do not agree.

    >>> expand(SparseMap(6, ((1, 2), (4, 1))), b"abc")
    b'\\x00ab\\x00c\\x00'
    """
    if sum(length for _, length in found.pieces) != len(data):
        raise ValueError("the pieces of its map are not what is stored")
    out, end, taken = [], 0, 0
    for offset, length in found.pieces:
        if offset < end or length < 0 or offset + length > found.size:
            raise ValueError("the pieces of its map overlap, or go beyond its end")
        out += [bytes(offset - end), data[taken : taken + length]]
        end, taken = offset + length, taken + length
    return b"".join([*out, bytes(found.size - end)])


def _entries(text: bytes) -> list[tuple[int, int]]:
    """The pairs of a header, up to the first empty one."""
    found = []
    for at in range(0, len(text) - 23, 24):
        if not text[at : at + 12].strip(b"\0"):
            break
        found.append((_number(text[at : at + 12]), _number(text[at + 12 : at + 24])))
    return found


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or binary behind a first byte of 128."""
    if field[0] == 128:
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _last(records: dict[str, list[bytes]], *keys: str) -> bytes:
    for key in keys:
        if key in records:
            return records[key][-1]
    raise ValueError("its size is missing")
