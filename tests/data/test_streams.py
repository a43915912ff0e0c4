"""Compressed streams: whole or an error that names the byte, never silently shorter."""

import bz2
import gzip
import io
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.sources.limits import Budget, LimitError, Limits
from bytelm.data.sources.streams import compression_of, decompressed
from bytelm.errors import DataError

PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}
JOINED = [name for name in PACKERS if name != "lzma"]


def unpack(packed: bytes, *, name: str = "x.lzma", size: int | None = None, **limits) -> bytes:
    kind = compression_of(packed, name)
    assert kind is not None
    return decompressed(io.BytesIO(packed), kind, Budget(Limits(**limits), size, name)).read()


@pytest.mark.parametrize("kind", PACKERS)
def test_the_first_bytes_tell_the_compression(kind):
    found = compression_of(PACKERS[kind](b"abc"), "x.lzma")
    assert found is not None and found.name == kind
    assert unpack(PACKERS[kind](b"abc")) == b"abc"


def test_lzma_has_no_magic_number_and_needs_the_name():
    assert compression_of(PACKERS["lzma"](b"abc"), "x.txt") is None
    assert compression_of(b"plain text", "x.gz") is None


@given(kind=st.sampled_from(JOINED), parts=st.lists(st.binary(max_size=9000), min_size=1))
def test_all_streams_of_a_file_are_read(kind, parts):
    assert unpack(b"".join(map(PACKERS[kind], parts))) == b"".join(parts)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65_535, 65_537, (1 << 20) - 1, (1 << 20) + 1])
def test_block_sizes_of_the_reader_are_crossed(kind, size):
    content = (b"%d " % size * (size // 2 + 1))[:size]
    assert unpack(PACKERS[kind](content)) == content


@given(kind=st.sampled_from(sorted(PACKERS)), share=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_an_error(kind, share):
    packed = PACKERS[kind](bytes(range(256)) * 2)
    with pytest.raises(DataError, match="cut short|empty"):
        cut = packed[: int(share * len(packed))]
        found = compression_of(packed, "x.lzma")
        decompressed(io.BytesIO(cut), found, Budget(Limits(), None, "x")).read()


@pytest.mark.parametrize("kind", JOINED)
def test_a_damaged_fourth_stream_is_no_end(kind):
    """Ten streams, the fourth with a damaged header: 300 of 1,000 documents, and status 0."""
    parts = [PACKERS[kind](b"part %d" % n * 100) for n in range(10)]
    damaged = bytearray(parts[3])
    damaged[1] ^= 0x10
    start = sum(map(len, parts[:3]))
    with pytest.raises(DataError, match=f"stream at byte {start}"):
        unpack(b"".join([*parts[:3], bytes(damaged), *parts[4:]]))


@pytest.mark.parametrize("kind", PACKERS)
def test_nothing_but_padding_may_follow(kind):
    packed = PACKERS[kind](b"abc")
    with pytest.raises(DataError, match="follow"):
        unpack(packed + b"garbage that is long enough to be no header at all")
    for zeros, allowed in ((1, ("gzip",)), (4, ("gzip", "xz"))):
        if kind in allowed:
            assert unpack(packed + bytes(zeros) + (packed if kind != "lzma" else b"")) == b"abcabc"
        else:
            with pytest.raises(DataError):
                unpack(packed + bytes(zeros))


@pytest.mark.parametrize("log", [27, 28])
def test_large_zstd_windows_are_read_and_the_limit_is_named(log):
    """`zstd --long=28` was refused with no way round."""
    options = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    out = io.BytesIO()
    packer = zstandard.ZstdCompressor(compression_params=options)
    with packer.stream_writer(out, closefd=False) as writer:
        writer.write(b"words " * 1000)
    assert unpack(out.getvalue()) == b"words " * 1000
    with pytest.raises(DataError, match=r"window of more than 1,048,576 .*--max-window"):
        unpack(out.getvalue(), window_bytes=1 << 20)


@pytest.mark.parametrize("kind", PACKERS)
def test_the_ratio_counts_beyond_the_floor_only(kind):
    zeros = bytes(4 << 20)
    packed = PACKERS[kind](zeros)
    assert unpack(packed, size=len(packed)) == zeros
    with pytest.raises(LimitError, match="--max-ratio"):
        unpack(packed, size=len(packed), floor_bytes=1 << 20)
    with pytest.raises(LimitError, match="--max-unpacked"):
        unpack(packed, size=len(packed), unpacked_bytes=1 << 20)


@pytest.mark.parametrize("kind", PACKERS)
def test_an_honest_text_of_any_size_is_no_bomb(kind):
    """A gzip text of ratio 3.6 was refused at 1 GiB; no limit of ours depends on the size alone."""
    text = "".join(f"{n * n} bytes of {n:x} in {n * 7919 % 9973}\n" for n in range(30_000)).encode()
    packed = PACKERS[kind](text)
    assert 2 < len(text) / len(packed) < 20
    assert unpack(packed, size=len(packed), floor_bytes=1) == text
