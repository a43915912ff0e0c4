"""Compressed streams: whole or an error, never silently shorter."""

import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.sources.streams import BROKEN, decompressed

pack = zstandard.ZstdCompressor().compress


@given(frames=st.lists(st.binary(max_size=20_000), max_size=4))
def test_all_frames_of_a_zstd_file_are_read(frames):
    packed = b"".join(map(pack, frames))
    assert decompressed(io.BytesIO(packed), "x.zst").read() == b"".join(frames)


def test_large_frames_cross_the_input_blocks():
    content = bytes(i * i % 251 for i in range(300_000))
    assert decompressed(io.BytesIO(pack(content)), "x.zst").read() == content


@given(cut=st.integers(1, 200))
def test_a_truncated_zstd_file_is_an_error(cut):
    packed = pack(bytes(range(256)) * 2)
    with pytest.raises(BROKEN):
        decompressed(io.BytesIO(packed[:-cut]), "x.zst").read()


def test_an_unknown_suffix_is_read_as_it_is():
    assert decompressed(io.BytesIO(b"abc"), "x.tar").read() == b"abc"
