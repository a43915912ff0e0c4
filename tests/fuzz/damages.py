"""What can happen to a file: its bytes, or the JSON in it, changed at random."""

import json
import math
import random
import re
import struct
from collections.abc import Callable
from typing import Any

DEEP = "<deep>"  # stands for many nested lists, which json.dumps cannot write
HUGE_NUMBERS = (2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, 1e308)
NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 256, 1000, 65536, *HUGE_NUMBERS, -(2**31), -(2**63), 0.5, -0.0)
STRINGS = ("", "x", " ", "\0", "é", "\ud800", "../x", "/etc/passwd", "a" * 5000, "%s{0}{{x}}", "1")
OTHERS = (None, True, False, [], {}, [[]], [0], [None], {"": None}, {"a": {}}, DEEP)
_WORDS = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to three damages, most of them in the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_BYTE_DAMAGES)(changed, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    """An offset: anywhere, or near the beginning, or near the end."""
    size = len(data)
    if size == 0:
        return 0
    near = min(size, int(2 ** rng.uniform(0, math.log2(size + 1))))
    return rng.choice((rng.randrange(size), max(0, near - 1), max(0, size - near)))


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] = rng.choice((0, 255, 0x22, 0x7B, 0x5B, 0x2C, rng.randrange(256)))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 8, 100))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.choice(
        (rng.randbytes(rng.choice((1, 4, 40))), bytes(8), b"[" * 20, b"9" * 20)
    )


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + rng.choice((1, 8, 100, 1000))]


def _word(data: bytearray, rng: random.Random) -> None:
    at, (form, bits) = _place(data, rng), rng.choice((("<I", 32), ("<Q", 64), (">I", 32)))
    data[at : at + bits // 8] = struct.pack(form, rng.choice(_WORDS) % (1 << bits))


def _blank(data: bytearray, rng: random.Random) -> None:
    at, size = _place(data, rng), rng.choice((1, 8, 100))
    data[at : at + size] = rng.choice((b"\0", b" ", b"\xff")) * len(data[at : at + size])


_BYTE_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _flip, _flip, _set, _set, _cut, _remove, _insert, _repeat, _word, _word, _blank),
)


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """The text, still UTF-8, after one to three changes of its lines, words and numbers."""
    lines = data.decode("utf-8").split("\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        line, act = lines[at], rng.random()
        words = re.findall(r"\w+|\W", line)
        if act < 0.15:
            lines[at : at + 1] = rng.choice(([], [line, line], ["", line], [line + lines[at - 1]]))
        elif act < 0.3:
            lines[at], lines[at - 1] = lines[at - 1], line
        elif act < 0.5 and "=" in line:
            lines[at] = line.split("=")[0] + "= " + rng.choice(_LITERALS)
        elif words:
            place = rng.randrange(len(words))
            words[place] = rng.choice((*_LITERALS, "", words[place - 1], words[place] * 2, *_SIGNS))
            lines[at] = "".join(words)
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


_SIGNS = ("{%", "%}", "{{", "}}", "'", '"', "(", ")", "[", "]", "=", ".", "|", "\\", "#", "\0", "é")
_LITERALS = (
    *("0", "-1", "1", "257", "65536", str(2**31), str(2**64), "1" * 400, "1e308", "nan", "inf"),
    *("true", '""', '"x"', "[]", "[[1]]", "{}", "b'x'", "('a',)", "range(99999)", "x", "[" * 300),
)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """The JSON text with one to three of its values, keys or members changed."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    text = text.replace(f'"{DEEP}"', _deep(rng))
    if rng.random() < 0.1:  # a key that is there twice
        text = text.replace(
            "{", '{"' + rng.choice(("model", "vocab", "type", "arch")) + '": 1, ', 1
        )
    return text.encode("utf-8", "surrogatepass")


def _deep(rng: random.Random) -> str:
    depth = rng.choice((50, 500, 5000, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    return opening * depth + "1" + closing * rng.choice((depth, 0))


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one node changed, the outer ones as likely as all inner ones together."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        copy = type(value)(value)
        act = rng.random()
        if act < 0.1:
            del copy[key]
        elif act < 0.15 and isinstance(copy, dict):
            copy[rng.choice(STRINGS)] = copy.pop(key)
        elif act < 0.2:
            copy[key] = value[rng.choice(keys)]  # that of a sibling
        elif act < 0.23 and isinstance(copy, list):
            copy.insert(key, value[rng.choice(keys)])
        else:
            copy[key] = _changed(value[key], rng)
        return copy
    if isinstance(value, bool):
        return rng.choice((not value, not value, rng.choice(OTHERS), "true"))
    if isinstance(value, int | float) and rng.random() < 0.7:
        number = rng.choice((*NUMBERS, math.nan, math.inf, value + 1, value - 1, value * 1000))
        return -number if rng.random() < 0.1 else number
    if isinstance(value, str) and rng.random() < 0.6:
        at = rng.randrange(len(value) + 1)
        return rng.choice((*STRINGS, value[:at], value + "x", value[:at] + "\0" + value[at:]))
    return rng.choice((*OTHERS, *NUMBERS, *STRINGS, math.nan, math.inf))
