"""Compressed files as streams of bytes, chosen by the suffix of their name.

The zstd reader is our own wrapping of its decompressor: the library's stream reader takes a
truncated file for a complete one, and data that ends early must be an error.
"""

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any, cast

import zstandard

SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst")
# What reading a damaged stream may raise.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)

_ZSTD_INPUT = 4096  # bytes in at a time; a bomb then gives at most about 128 MB at once


def decompressed(stream: IO[bytes], name: str) -> IO[bytes]:
    """The bytes behind the compression that `name` tells; `stream` itself if it tells none."""
    suffix = "." + name.lower().rpartition(".")[2]
    if suffix in (".gz", ".tgz", ".crate"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if suffix in (".bz2", ".tbz2"):
        return bz2.BZ2File(stream)
    if suffix in (".xz", ".txz", ".lzma"):
        return lzma.LZMAFile(stream)
    if suffix == ".zst":
        return io.BufferedReader(_ZstdReader(stream))
    return stream


class _ZstdReader(io.RawIOBase):
    """All frames of a zstd stream, one after the other; `EOFError` if the last is cut short."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fed = False  # whether the current frame has had input
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; 0 at the end."""
        while not self._output:
            self._input = self._input or self._stream.read(_ZSTD_INPUT)
            if not self._input:
                if self._fed:
                    raise EOFError("the zstd stream ends inside a frame")
                return 0
            self._output = memoryview(self._advance())
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _advance(self) -> bytes:
        out = self._frame.decompress(self._input)
        self._input, self._fed = b"", True
        if self._frame.eof:
            self._input, self._fed = self._frame.unused_data, False
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return out
