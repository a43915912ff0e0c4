"""The header of a GGUF file, checked before a library takes it at its word.

The library walks arrays as long as the file says they are, also beyond its end, where it finds
nothing for hours. Here every length is compared with the bytes that are left, and every tensor with
the size of the file. Nothing is kept but the shapes of the tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

from bytelm.damage import malformed, one_line
from bytelm.errors import CheckpointError

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_DIMENSIONS = 4  # of a tensor at most
_NESTING = 4  # arrays in arrays


def check_gguf(path: Path) -> list[tuple[int, ...]]:
    """The shapes of the tensors in a GGUF file.

    `CheckpointError` for a file that is none, and for a header that promises more than it holds.
    """
    with malformed(path, "a GGUF file"), path.open("rb") as file:
        if path.stat().st_size < 24:
            raise CheckpointError(f"{path} is not a GGUF file: it is too short for a header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data).shapes()


class _Header:
    """A walk through the header. Every step checks that what it reads is there."""

    def __init__(self, path: Path, data: mmap.mmap):
        self._path, self._data, self._at, self._order = path, data, 0, "<"

    def shapes(self) -> list[tuple[int, ...]]:
        """Walk all of it."""
        if self._take(4) != b"GGUF":
            raise CheckpointError(f"{self._path} is not a GGUF file: it does not begin with GGUF")
        version = self._number("I")
        if version & 0xFFFF == 0:  # written in the order of bytes of another machine
            self._order, version = ">", version >> 24
        if version not in _VERSIONS:
            raise self._wrong(f"version {version} is not one of {', '.join(map(str, _VERSIONS))}")
        tensors, entries = self._number("Q"), self._number("Q")
        for _ in range(self._count(entries, least=13)):
            self._string()
            self._value(self._number("I"), depth=0)
        found = [self._tensor() for _ in range(self._count(tensors, least=24))]
        for name, shape, size in found:
            if size > len(self._data):
                raise self._wrong(f"the tensor {name} of shape {shape} is larger than the file")
        return [shape for _, shape, _ in found]

    def _value(self, kind: int, *, depth: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in _SIZES:
                self._skip(self._count(count, least=_SIZES[inner]) * _SIZES[inner])
                return
            if depth == _NESTING:
                raise self._wrong("arrays are nested too deeply")
            for _ in range(self._count(count, least=8)):
                self._value(inner, depth=depth + 1)
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise self._wrong(f"there is no type {kind} of values")

    def _tensor(self) -> tuple[str, tuple[int, ...], int]:
        """Name, shape and size in bytes of the next tensor."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = one_line(ascii(self._string().decode("utf-8", "replace")))
        dimensions = self._number("I")
        if dimensions > _DIMENSIONS:
            raise self._wrong(f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        kind = self._number("I")
        self._number("Q")  # where it is: the reader fails beyond the end
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise self._wrong(f"the tensor {name} has the unknown type {kind}") from None
        return name, shape, math.prod(shape) * size // block

    def _string(self) -> bytes:
        return self._take(self._count(self._number("Q"), least=1))

    def _number(self, form: str) -> int:
        size = struct.calcsize(form)
        return int(struct.unpack(self._order + form, self._take(size))[0])

    def _count(self, count: int, *, least: int) -> int:
        """The count, if so many things of at least `least` bytes can follow."""
        if count * least > len(self._data) - self._at:
            raise self._wrong(f"{count:,} entries are said to follow, more than the file holds")
        return count

    def _take(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._data[start : self._at]

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise self._wrong("it ends inside the header")
        self._at += size

    def _wrong(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} is damaged or truncated: {why} (header, byte {self._at:,})"
        )
