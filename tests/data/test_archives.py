"""Hostile archives: bombs are refused early, and no bytes whatever crash a reader."""

import gzip
import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data.sources.archives import open_archive
from bytelm.data.sources.limits import Limits
from bytelm.errors import DataError
from tests.data.containers import ARCHIVES, MEMBERS, tar_of, zip_of

SMALL = Limits(unpacked_bytes=4 << 20, members=10, floor_bytes=1 << 16, nesting=2)


def read(path, limits=SMALL):
    return [document.data for document in open_archive(path, limits=limits)]


@pytest.mark.parametrize("suffix", ["zip", "gz", "tar.gz"])
def test_a_bomb_is_refused_after_reading_little(tmp_path, suffix):
    zeros = bytes(8 << 20)
    content = {
        "zip": lambda: zip_of({"zeros": zeros}),
        "gz": lambda: gzip.compress(zeros),
        "tar.gz": lambda: gzip.compress(tar_of({"zeros": zeros})),
    }[suffix]()
    assert len(content) < 20_000
    (tmp_path / f"bomb.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match="refused as an archive bomb"):
        read(tmp_path / f"bomb.{suffix}")


def test_many_members_are_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(zip_of({str(i): b"x" for i in range(11)}))
    with pytest.raises(DataError, match="more than 10 members"):
        read(tmp_path / "x.zip")


def test_deep_nesting_is_refused(tmp_path):
    content = b"core"
    for level in range(4):
        content = zip_of({f"{level}.zip" if level else "core.txt": content})
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match="nested deeper than 2"):
        read(tmp_path / "x.zip")
    assert read(tmp_path / "x.zip", Limits()) == [b"core"]


def test_members_that_share_their_bytes_count_each_time(tmp_path):
    # Overlapping members: many directory entries that point at one compressed stream.
    member = zip_of({"a": bytes(1 << 15)})
    start = member.index(b"PK\x01\x02")
    end = member.index(b"PK\x05\x06")
    directory = member[start:end] * 9
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(directory), start, 0)
    (tmp_path / "x.zip").write_bytes(member[:start] + directory + record)
    with pytest.raises(DataError, match="bomb|cannot be read"):
        read(tmp_path / "x.zip")


def test_a_size_in_a_header_is_not_believed(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(4 << 20))
    content = out.getvalue().replace(struct.pack("<L", 4 << 20), struct.pack("<L", 10))
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError):
        read(tmp_path / "x.zip")


def test_an_encrypted_member_is_an_error_not_a_crash(tmp_path):
    content = bytearray(zip_of({"a": b"secret"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(bytes(content))
    with pytest.raises(DataError, match="member a: it needs a password.*--skip-errors"):
        read(tmp_path / "x.zip")


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(ARCHIVES)), data=st.data())
def test_damaged_archives_give_an_error_or_members(tmp_path_factory, name, data):
    content = bytearray(ARCHIVES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    try:
        assert len(read(path)) <= 10
    except DataError as error:
        assert str(path) in str(error) or "bomb" in str(error)


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_an_empty_file_is_no_archive(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError):
        read(tmp_path / name)


def test_the_ratio_of_ordinary_files_is_no_bomb(tmp_path):
    assert max(len(content) for content in MEMBERS.values()) > 0
    log = b"2026-01-01 INFO started\n" * 20_000
    assert len(log) / len(zlib.compress(log)) > 100
    (tmp_path / "log.gz").write_bytes(gzip.compress(log))
    assert read(tmp_path / "log.gz", Limits()) == [log]
