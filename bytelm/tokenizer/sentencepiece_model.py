"""Export for sentencepiece: a BPE `.model` whose characters stand for bytes.

sentencepiece knows no bytes and drops or rewrites many characters, so each byte is one character of
the CJK block, U+4E00 + byte, and every step that rewrites text is off. It merges whatever
neighbours spell a piece, best score first and then leftmost; with all tokens reachable from their
own bytes that is exact BPE (while a token's bytes are undisturbed they go through the states of
its own encoding), so ids are equal. The file is a protocol buffer of a dozen fields, written here
by hand; the field numbers are those of sentencepiece_model.proto.
"""

import struct
from collections.abc import Sequence

FIRST = 0x4E00
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # types of pieces
_BPE = 2
_TO_TEXT = {value: FIRST + value for value in range(256)}


def as_text(data: bytes) -> str:
    """What sentencepiece is given for `data`.

    >>> as_text(bytes([0, 1]))
    '一丁'
    """
    return data.decode("latin-1").translate(_TO_TEXT)


def sentencepiece_model(
    tokens: Sequence[bytes | str], ranks: Sequence[int], *, unknown: str
) -> bytes:
    """The `.model` file. `tokens` in the order of ids: bytes, or the names of special tokens, of
    which one is `unknown` (sentencepiece demands it); `ranks` in the order of merging."""
    parts = []
    for token, rank in zip(tokens, ranks, strict=True):
        if isinstance(token, bytes):
            piece = _text(1, as_text(token)) + _float(2, -float(rank)) + _int(3, _NORMAL)
        else:
            piece = _text(1, token) + _int(3, _UNKNOWN if token == unknown else _CONTROL)
        parts.append(_message(1, piece))
    absent = (1 << 64) - 1  # -1: neither beginning, end nor padding are ever added
    trainer = _int(3, _BPE) + _int(4, len(tokens)) + _int(40, tokens.index(unknown))
    trainer += _int(41, absent) + _int(42, absent) + _int(43, absent) + _text(45, unknown)
    identity = _text(1, "identity") + _int(3, 0) + _int(4, 0) + _int(5, 0)
    return b"".join([*parts, _message(2, trainer), _message(3, identity)])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
