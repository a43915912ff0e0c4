"""Sections of executables: the bytes at the stated offset, and nothing invented."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data import Corpus, Reading, open_source
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.magic import EXECUTABLE, identify
from bytelm.data.sources.executables import SECTIONED, sections
from bytelm.errors import DataError

pytest.importorskip("lief")

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "executables"
FILES = sorted(p for p in SAMPLES.glob("*/*") if p.suffix in (".so", ".pyd"))
SMALL = [path for path in FILES if path.stat().st_size < 60_000]
CODE = {".so": (".text", "__TEXT,__text"), ".pyd": (".text",)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_sections_lie_inside_the_file_and_code_is_found(path):
    data = path.read_bytes()
    found = sections(data)
    assert len(found) >= 4
    assert all(0 < s.offset <= s.offset + s.size <= len(data) for s in found)
    assert any(s.name in CODE[path.suffix] and s.code and s.size > 1000 for s in found)
    assert not any(s.code for s in found if "data" in s.name)


def test_elf_sections_agree_with_the_section_headers():
    data = (SAMPLES / "wrapt" / "manylinux2014_x86_64.so").read_bytes()
    # ELF64: e_shoff at 40, e_shentsize at 58, e_shnum at 60; sh_type, flags, addr, offset, size
    (start,) = struct.unpack_from("<Q", data, 40)
    entry, count = struct.unpack_from("<HH", data, 58)
    expected = []
    for i in range(count):
        kind, flags, address, offset, size = struct.unpack_from("<4xIQQQQ", data, start + i * entry)
        if offset and kind not in (0, 8):  # NULL and NOBITS have no content
            expected.append((offset, size, address, bool(flags & 4)))
    found = sections(data)
    assert [(s.offset, s.size, s.address, s.code) for s in found] == expected


def test_pe_sections_agree_with_the_section_table():
    data = (SAMPLES / "xxhash" / "win_amd64.pyd").read_bytes()
    (header,) = struct.unpack_from("<I", data, 0x3C)
    count, optional = struct.unpack_from("<H12xH", data, header + 6)
    (base,) = struct.unpack_from("<Q", data, header + 24 + 24)
    expected = []
    for i in range(count):
        at = header + 24 + optional + 40 * i
        virtual, address, stored, offset, flags = struct.unpack_from("<4I12xI", data, at + 8)
        expected.append((offset, min(virtual, stored), base + address, bool(flags >> 29 & 1)))
    found = sections(data)
    assert [(s.offset, s.size, s.address, s.code) for s in found] == expected


def test_both_halves_of_a_fat_file_keep_their_offsets():
    thin = [
        (SAMPLES / "xxhash" / f"macosx_{n}.so").read_bytes() for n in ("10_9_x86_64", "11_0_arm64")
    ]
    offsets = [1 << 14, (1 << 14) + -(-len(thin[0]) // (1 << 14)) * (1 << 14)]
    fat = b"\xca\xfe\xba\xbe" + struct.pack(">I", 2)
    for cpu, data, offset in zip((0x01000007, 0x0100000C), thin, offsets, strict=True):
        fat += struct.pack(">5I", cpu, 0 if cpu & 8 else 3, offset, len(data), 14)
    for data, offset in zip(thin, offsets, strict=True):
        fat = fat.ljust(offset, b"\0") + data
    found = sections(fat)
    alone = [sections(data) for data in thin]
    assert [s.offset for s in found] == [
        s.offset + offset for part, offset in zip(alone, offsets, strict=True) for s in part
    ]
    text = next(s for s in found if s.name == "__TEXT,__text")
    assert fat[text.offset :][:100] == thin[0][alone[0][0].offset :][:100]


def test_a_position_maps_back_to_file_offset_and_address(tmp_path):
    path = SAMPLES / "xxhash" / "win32.pyd"
    Corpus.build(path, tmp_path / "c", reading=Reading(sections="each"))
    corpus, rows = Corpus.open(tmp_path / "c"), list(read_rows(tmp_path / "c"))
    position = int(corpus.offsets[1]) + 7
    document, byte = corpus.locate(position)
    row = rows[document]
    assert (document, byte, row["path"]) == (1, 7, ":.rdata")
    stored = path.read_bytes()[row["offset"] + byte]
    assert corpus.read(position, position + 1)[0] == stored
    assert row["address"] == 0x1000B000


def test_only_code_leaves_data_out_and_other_files_pass_whole():
    each, code = (
        sum(len(d.data) for d in open_source(SAMPLES / "xxhash", reading=Reading(sections=part)))
        for part in ("each", "code")
    )
    assert 0 < code < each
    (wasm,) = open_source(SAMPLES / "tree-sitter" / "json.wasm", reading=Reading(sections="code"))
    assert wasm.data[:4] == b"\0asm"


def test_a_file_that_only_starts_like_an_executable_passes_whole(tmp_path):
    for i, start in enumerate((b"\x7fELF\x02\x01\x01", b"\xcf\xfa\xed\xfe")):
        data = start + bytes(9) + b"\x03\x00\x3e\x00" + b"rest"
        (tmp_path / str(i)).write_bytes(data)
        (document,) = open_source(tmp_path / str(i), reading=Reading(sections="each"))
        assert document.data == data and "offset" not in document.meta


def elf_of(sections: list[tuple[int, int, int]], content: bytes) -> bytes:
    """A 64-bit ELF file with sections (offset in `content`, size, flags) and their string table."""
    names = b"\0.part\0.names\0"
    start = 64 + len(content) + len(names)
    rows = [(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    rows += [(1, 1, flags, 0, 64 + at, size, 0, 0, 1, 0) for at, size, flags in sections]
    rows.append((7, 3, 0, 0, 64 + len(content), len(names), 0, 0, 1, 0))
    count = len(rows)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = (3, 62, 1, 0, 0, start, 0, 64, 0, 0, 64, count, count - 1)
    table = b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows)
    return ident + struct.pack("<HHIQQQIHHHHHH", *head) + content + names + table


@pytest.mark.parametrize("count, cut", [(1, True), (2, True), (3, False), (1500, False)])
def test_overlapping_sections_are_bounded_by_twice_the_file(tmp_path, count, cut):
    """A 196 KB file with 1,500 overlapping section headers gave 149 MB."""
    content = bytes(range(256)) * 390
    data = elf_of([(0, len(content), 4)] * count, content)
    (tmp_path / "x.so").write_bytes(data)
    reading = Reading(sections="each")
    found = [document.data for document in open_source(tmp_path, reading=reading)]
    assert sum(map(len, found)) <= 2 * len(data)
    if cut:
        assert found[:count] == [content] * count and not reading.notes.counts
    else:
        assert found == [data] and reading.notes.counts == {"unsplit executable": 1}
        with pytest.raises(DataError, match="--strict: unsplit executable.*overlap"):
            list(open_source(tmp_path, reading=Reading(sections="each", strict=True)))


def test_executables_that_are_not_cut_or_have_no_code_are_counted(tmp_path):
    content = b"nothing to execute" * 9
    (tmp_path / "data.so").write_bytes(elf_of([(0, len(content), 2)], content))
    (tmp_path / "cut.so").write_bytes(FILES[0].read_bytes()[:300])
    (tmp_path / "text.txt").write_bytes(b"no executable")
    reading = Reading(sections="code")
    found = [document.data for document in open_source(tmp_path, reading=reading)]
    assert found == [FILES[0].read_bytes()[:300], b"no executable"]
    counts = {"executable without code": 1, "unsplit executable": 1}
    assert reading.notes.counts == counts


@settings(max_examples=40)
@given(name=st.sampled_from(SMALL), data=st.data())
def test_damaged_executables_never_give_bytes_beyond_the_file(name, data):
    content = bytearray(name.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers are where damage matters.
        at = data.draw(st.integers(4, 1023) | st.integers(4, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(64, len(content)))])
    try:
        for section in sections(content):
            assert section.offset + section.size <= max(len(content), section.offset)
    except DataError as error:
        assert "cannot be parsed" in str(error)


@pytest.mark.slow
def test_forty_real_executables_of_nine_kinds_are_recognised(tmp_path):
    root = SAMPLES.parents[1]
    command = [sys.executable, str(root / "benchmarks" / "fetch" / "make_executables.py")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    made = subprocess.run(
        [*command, str(tmp_path)], check=True, text=True, stdout=subprocess.PIPE, env=environment
    )
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) >= 40
    missing = set(EXECUTABLE) - {identify(path.read_bytes()).format for path in files}
    assert missing == ({"llvm-bitcode"} if "left out the Debian" in made.stdout else set())
    for path in files:
        data = path.read_bytes()
        found = identify(data)
        named = f"{found.format}-{found.isa or ''}-"
        assert path.name.startswith(named), f"{path.name} recognised as {named}"
        if found.format in SECTIONED:
            found = sections(data)
            assert found and all(s.offset + s.size <= len(data) for s in found), path
            # Two object files hold nothing but a table; else the least is a stub of some 200 bytes.
            least = 0 if path.suffix == ".o" else 100
            assert any(section.code and section.size >= least for section in found), path
