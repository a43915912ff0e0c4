"""What general compressors make of the same bytes: the baselines of every bits-per-byte figure.

The documents are joined and compressed as one stream, which favours the compressor: it keeps its
context over document ends. Sizes are whole files, headers included.

Primed figures are the fair baseline, a compressor that has seen the training text, too:
size(training + heldout) - size(training), with the training text in front. xz then needs a
dictionary and ppmd a memory as large as both, which they get.
"""

import gzip
import lzma
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from bytelm.errors import MissingExtraError

Compressor = Callable[[bytes], int]  # -> compressed size in bytes


def _gzip(data: bytes) -> int:
    """gzip -9"""
    return len(gzip.compress(data, 9, mtime=0))


def _xz(data: bytes) -> int:
    """xz -9e, with a dictionary as large as the data where 64 MiB are not enough"""
    size = min(max(64 << 20, len(data)), 1536 << 20)
    preset = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=[preset]))


def _zstd(data: bytes) -> int:
    """zstd -19"""
    import zstandard

    return len(zstandard.ZstdCompressor(level=19).compress(data))


def _ppmd(data: bytes) -> int:
    """ppmd variant I, order 8, memory for all of the data"""
    if find_spec("pyppmd") is None:
        raise MissingExtraError("pyppmd", "ppmd", "the ppmd figure")
    import pyppmd

    memory = min(max(64 << 20, 32 * len(data)), 2000 << 20)
    encoder = pyppmd.Ppmd8Encoder(8, memory, pyppmd.PPMD8_RESTORE_METHOD_RESTART)
    return len(encoder.encode(data)) + len(encoder.flush())


COMPRESSORS: Mapping[str, Compressor] = {"gzip": _gzip, "xz": _xz, "zstd": _zstd, "ppmd": _ppmd}
PRIMED = ("xz", "ppmd")


def available() -> list[str]:
    """The compressors installed here: ppmd needs the package pyppmd."""
    return [name for name in COMPRESSORS if name != "ppmd" or find_spec("pyppmd")]


def compressed_bits_per_byte(
    data: bytes, *, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Bits per byte of `data` under each available compressor; on_progress: (done, in all).

    >>> figures = compressed_bits_per_byte(b"to be or not to be, " * 100)
    >>> {"gzip", "xz", "zstd"} <= figures.keys(), figures["gzip"] < 1
    (True, True)
    """
    figures: dict[str, float] = {}
    for name in (names := available()):
        if on_progress is not None:
            on_progress(len(figures), len(names))
        figures[name] = 8 * COMPRESSORS[name](data) / len(data)
    return figures


def primed_bits_per_byte(data: bytes, training: bytes) -> dict[str, float]:
    """Bits per byte of `data` under compressors that have read `training` before: xz and ppmd."""
    return {
        name: 8 * (COMPRESSORS[name](training + data) - COMPRESSORS[name](training)) / len(data)
        for name in available()
        if name in PRIMED
    }
