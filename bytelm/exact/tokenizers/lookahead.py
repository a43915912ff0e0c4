"""Lookahead probes: continuations that stand for all others a tokenizer may see after the bytes
it has.

A regular-expression pre-tokenizer looks ahead, so where the text so far is cut can depend on what
follows: GPT-2 keeps "\\n\\n" whole at the end of a text but splits it before a letter. To know each
cut that some continuation makes, it is enough to try one representative per class of characters
that such expressions tell apart: letters, digits (and groups of three), blanks, line ends,
punctuation, marks, the letters that complete English contractions. Text may also end inside a
UTF-8 character; then its possible completions are tried, one per class as well.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

PLACEHOLDER = "\ufffd"  # stands for a byte that is no UTF-8: a symbol to every pre-tokenizer

_ALWAYS = ("", "a", "0", " ", "\n", ".", "'", "\u0301")
_AFTER_APOSTROPHE = ("s", "e", "l", "S", "E", "L")
_AFTER_DIGIT = ("00", "000")
_INSIDE_CHARACTER = ("", "a", "\n")


def decode(data: bytes) -> tuple[str, list[int], bytes]:
    """Text, the number of bytes of each of its characters, and an incomplete character at the end.

    Bytes that cannot be UTF-8 become one placeholder character each.

    >>> decode(b"a\\xff\\xc3\\xa9\\xe4\\xb8")
    ('a\\ufffdé', [1, 1, 2], b'\\xe4\\xb8')
    """
    pieces: list[str] = []
    lengths: list[int] = []
    while data:
        try:
            text, bad, rest = data.decode(), b"", b""
        except UnicodeDecodeError as error:
            text = data[: error.start].decode()
            bad, rest = data[error.start : error.end], data[error.end :]
            if error.reason == "unexpected end of data":
                return _joined(pieces, lengths, text, b"") + (bad,)
        _joined(pieces, lengths, text, bad)
        data = rest
    return "".join(pieces), lengths, b""


def _joined(pieces: list[str], lengths: list[int], text: str, bad: bytes) -> tuple[str, list[int]]:
    pieces.append(text + PLACEHOLDER * len(bad))
    lengths.extend(len(c.encode()) for c in text)
    lengths.extend([1] * len(bad))
    return "".join(pieces), lengths


def lookahead_probes(text: str) -> tuple[str, ...]:
    """Continuations to try after `text`, the empty one first."""
    found: tuple[str, ...] = _ALWAYS
    if "'" in text[-3:] or "\u2019" in text[-3:]:
        found += _AFTER_APOSTROPHE
    if text[-1:].isnumeric():
        found += _AFTER_DIGIT
    return found


@lru_cache(maxsize=4096)
def completions(tail: bytes) -> tuple[str, ...]:
    """Characters whose UTF-8 starts with the incomplete `tail`, one per class, each followed by
    what may matter after it."""
    low, high = code_points(tail)
    found: dict[str, str] = {}
    for code in range(low, high):
        character = chr(code)
        kind = unicodedata.category(character)
        if kind == "Cs":
            continue
        if character.isspace():
            kind = "newline" if character in "\u0085\u2028\u2029" else "space"
        elif kind[0] != "L":
            kind = {"P": "symbol", "S": "symbol"}.get(kind[0], kind[0])
        found.setdefault(kind, character)
    return tuple(c + after for c in found.values() for after in _INSIDE_CHARACTER)


def code_points(tail: bytes) -> tuple[int, int]:
    """The range of code points whose UTF-8 starts with `tail`."""
    size = 2 if tail[0] < 0xE0 else 3 if tail[0] < 0xF0 else 4
    missing = size - len(tail)
    code = tail[0] & (0xFF >> (size + 1))
    for byte in tail[1:]:
        code = code << 6 | (byte & 0x3F)
    low = max(code << 6 * missing, {2: 0x80, 3: 0x800, 4: 0x10000}[size])
    return low, min((code + 1) << 6 * missing, 0x110000)
