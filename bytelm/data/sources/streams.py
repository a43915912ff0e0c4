"""Compressed files as streams of bytes; their first bytes decide how, never their name.

A file may hold several streams one after the other, as `cat a.gz b.gz` makes. The libraries' own
file objects are not used: those of bzip2, xz and zstd take a damaged or cut stream for the end of
the file. Here whatever is neither a whole stream nor padding that the format allows is an error
that names the byte. What comes out is counted against the `Budget` of the file. All formats but
.lzma (and zstd written without checksums) have checksums, which are verified.
"""

import bz2
import io
import lzma
import zlib
from dataclasses import dataclass
from typing import IO, Any, Protocol

import zstandard

from bytelm.data.sources.limits import Budget, Limits
from bytelm.errors import DataError

SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst")

_INPUT = 1 << 16  # bytes in at a time
_ZSTD_INPUT = 4096  # it takes no limit on what comes out: at most about 128 MB from this much
_OUTPUT = 1 << 20  # bytes out at a time
_LZMA_LEAST = 13  # bytes of a .lzma header
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError)


class Decoder(Protocol):
    """Decodes one stream."""

    eof: bool
    unused_data: bytes

    def decode(self, data: bytes) -> bytes:
        """Some of what comes out, given more input (or none, to fetch more of what is there)."""

    @property
    def hungry(self) -> bool:
        """Whether it can give nothing without more input."""


class _Gzip:
    def __init__(self, budget: Budget):
        self._inner = zlib.decompressobj(31)

    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    hungry = property(lambda self: not self._inner.unconsumed_tail)

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _OUTPUT)


class _Bounded:
    """bzip2, xz and lzma share one interface."""

    def __init__(self, inner: Any):
        self._inner = inner

    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    hungry = property(lambda self: self._inner.needs_input)

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _OUTPUT)


class _Zstd:
    def __init__(self, budget: Budget):
        most = min(budget.limits.window_bytes, (1 << 32) - 1)
        self._inner = zstandard.ZstdDecompressor(max_window_size=most).decompressobj()
        self._most, self._setting = most, budget.spelling.of(Limits.setting("window_bytes"))

    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    hungry = True

    def decode(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data)
        except zstandard.ZstdError as error:
            if "too much memory" not in str(error):
                raise
            raise DataError(
                f"a zstd frame asks for a window of more than {self._most:,} bytes of memory; "
                f"allow it with {self._setting}"
            ) from error


@dataclass(frozen=True)
class Compression:
    """A format: how its streams begin, what may pad them, how they are decoded."""

    name: str
    magics: tuple[bytes, ...]
    decoder: Any
    padding: int = 0  # streams may be followed by zeros, in units of so many bytes; 0: by none
    input_bytes: int = _INPUT


_BZIP2 = tuple(
    b"BZh%d" % level + after
    for level in range(1, 10)
    for after in (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
)
_LZMA = Compression(
    "lzma", (), lambda budget: _Bounded(lzma.LZMADecompressor(format=lzma.FORMAT_ALONE))
)
_FORMATS = (
    Compression("gzip", (b"\x1f\x8b\x08",), _Gzip, padding=1),
    Compression("bzip2", _BZIP2, lambda budget: _Bounded(bz2.BZ2Decompressor())),
    Compression(
        "xz",
        (b"\xfd7zXZ\0",),
        lambda budget: _Bounded(lzma.LZMADecompressor(format=lzma.FORMAT_XZ)),
        padding=4,
    ),
    Compression(
        "zstd",
        (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))),
        _Zstd,
        input_bytes=_ZSTD_INPUT,
    ),
)


def compression_of(head: bytes, name: str = "") -> Compression | None:
    """The compression of a file that begins with `head`; None: there is none.

    The headers of .lzma files hold no magic number: they are believed only under that `name`. A
    head that differs from a magic number in one or two bits, or is only the beginning of one, is
    taken for a damaged one, so that reading it gives an error.

    >>> compression_of(b"\\x1f\\x8b\\x08\\0\\0").name, compression_of(b"plain")
    ('gzip', None)
    """
    for kind in _FORMATS:
        if any(nearly(head, magic) for magic in kind.magics):
            return kind
    return _LZMA if name.lower().endswith(".lzma") and _is_lzma(head) else None


def compression_of_pipe(head: bytes) -> Compression | None:
    """The compression of a stream without a name, which must begin with just the magic number.

    >>> compression_of_pipe(b"\\x1f\\x8b\\x08").name, compression_of_pipe(b"\\x1f")
    ('gzip', None)
    """
    return next((kind for kind in _FORMATS if head.startswith(kind.magics)), None)


def nearly(head: bytes, magic: bytes) -> bool:
    """Whether `head` begins with `magic`, with at most two bits wrong, or is cut inside it.

    >>> nearly(b"PAR1...", b"PAR1"), nearly(b"QAR1", b"PAR1"), nearly(b"text", b"PAR1")
    (True, True, False)
    >>> nearly(b"PA", b"PAR1"), nearly(b"", b"PAR1")
    (True, False)
    """
    found = head[: len(magic)]
    if len(found) < len(magic):
        return bool(found) and magic.startswith(found)
    wrong = int.from_bytes(found, "big") ^ int.from_bytes(magic, "big")
    return wrong.bit_count() <= 2


def _is_lzma(head: bytes) -> bool:
    """Properties below 225, and a length that is unknown or below 256 GiB, as xz itself judges."""
    if len(head) < _LZMA_LEAST:
        return bool(head) and head[0] < 225
    length = int.from_bytes(head[5:13], "little")
    return head[0] < 225 and (length == (1 << 64) - 1 or length < 1 << 38)


def decompressed(stream: IO[bytes], compression: Compression, budget: Budget) -> IO[bytes]:
    """The bytes behind a compression, counted against `budget`.

    Reading raises `DataError`, with the place in the compressed bytes, for a stream that is damaged
    or cut, for anything behind the streams, and for what the limits forbid.
    """
    return io.BufferedReader(_Streams(stream, compression, budget), _OUTPUT)


class _Streams(io.RawIOBase):
    """All streams of a compressed file, one after the other."""

    def __init__(self, stream: IO[bytes], compression: Compression, budget: Budget):
        self._stream, self._kind, self._budget = stream, compression, budget
        self._decoder: Decoder | None = None  # None: between two streams
        self._input = b""  # not decoded yet
        self._offset = 0  # of the end of `_input` in the compressed file
        self._start = 0  # of the stream that is being decoded
        self._output = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; 0 at the end."""
        while not self._output:
            if self._decoder is None and not self._begin():
                return 0
            self._output = memoryview(self._advance())
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _fill(self) -> bool:
        """More input, behind what is left; False at its end."""
        more = self._stream.read(self._kind.input_bytes)
        self._offset += len(more)
        self._input += more
        return bool(more)

    def _begin(self) -> bool:
        """Start the next stream behind any padding; False at the end of the file."""
        zeros = 0
        while self._offset > 0 and self._kind.padding:  # never before the first stream
            rest = self._input.lstrip(b"\0")
            zeros += len(self._input) - len(rest)
            self._input = rest
            if rest or not self._fill():
                break
        if zeros and zeros % self._kind.padding:
            raise self._error(f"{zeros} zeros follow a stream, which is no whole padding")
        if not self._input and not self._fill():
            if self._offset == 0:
                raise self._error("the file is empty")
            return False
        self._start = self._offset - len(self._input)
        if self._start and self._kind is _LZMA:
            raise self._error("something follows the stream")
        self._decoder = self._kind.decoder(self._budget)
        return True

    def _advance(self) -> bytes:
        assert self._decoder is not None, "begun"
        if not self._input and self._decoder.hungry and not self._fill():
            raise self._error("the file is cut short inside a stream")
        given, self._input = self._input, b""
        try:
            out = self._decoder.decode(given)
        except DataError as error:
            raise self._error(str(error)) from error
        except _BROKEN as error:
            what = "is damaged" if self._start == 0 else "is damaged, or something else follows"
            raise self._error(f"the stream {what} ({error})") from error
        if self._decoder.eof:
            self._input, self._decoder = self._decoder.unused_data, None
        self._budget.spend(len(out))
        return out

    def _error(self, why: str) -> DataError:
        where = f"{self._kind.name} stream at byte {self._start}, read up to byte {self._offset}"
        return DataError(f"{why}: {where}")
