"""File formats by magic number: the two ambiguous ones, real files, and any bytes at all."""

import importlib.util
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bytelm.data.magic import EXECUTABLE, Identity, identify
from tests.data.containers import ARCHIVES

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "executables"
EXPECTED = {
    "heldout-markupsafe/macosx_11_0_arm64.so": ("macho", "arm64", 64),
    "heldout-markupsafe/manylinux2014_x86_64.so": ("elf", "x86-64", 64),
    "heldout-markupsafe/win_amd64.pyd": ("pe", "x86-64", 64),
    "tree-sitter/css.wasm": ("wasm", None, None),
    "wrapt/manylinux2014_aarch64.so": ("elf", "arm64", 64),
    "wrapt/manylinux2014_x86_64.so": ("elf", "x86-64", 64),
    "xxhash/macosx_10_9_x86_64.so": ("macho", "x86-64", 64),
    "xxhash/macosx_11_0_arm64.so": ("macho", "arm64", 64),
    "xxhash/win32.pyd": ("pe", "x86", 32),
    "xxhash/win_amd64.pyd": ("pe", "x86-64", 64),
    "xxhash/win_arm64.pyd": ("pe", "arm64", 64),
    "xxhash/LICENSE": ("text", None, None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_bundled_executables_are_recognised(name):
    found = identify((SAMPLES / name).read_bytes())
    assert (found.format, found.isa, found.bits) == EXPECTED[name]


def test_cafebabe_is_a_class_or_a_fat_macho():
    java = b"\xca\xfe\xba\xbe" + struct.pack(">HH", 0, 52) + bytes(8)
    preview = b"\xca\xfe\xba\xbe" + struct.pack(">HH", 65535, 61) + bytes(8)
    fat = b"\xca\xfe\xba\xbe" + struct.pack(">I", 2) + bytes(40)
    fat64 = b"\xca\xfe\xba\xbf" + struct.pack(">I", 2) + bytes(64)
    names = [identify(data).format for data in (java, preview, fat, fat64)]
    assert names == ["java-class", "java-class", "macho-fat", "macho-fat"]
    assert identify(b"\xca\xfe\xba\xbe\0\0\0\0").format == "data"


def test_mz_without_pe_is_a_dos_program():
    dos = b"MZ" + bytes(58) + struct.pack("<I", 0) + bytes(100)
    pe = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664)
    far = b"MZ" + bytes(58) + struct.pack("<I", 0xFFFFFFFF) + bytes(100)
    assert [identify(d).format for d in (dos, pe, far)] == ["dos-mz", "pe", "dos-mz"]
    assert identify(b"MZ is how this sentence starts").format == "text"


def test_byte_code_of_this_python_is_recognised():
    cached = importlib.util.cache_from_source(struct.__file__)
    assert identify(Path(cached).read_bytes()).format == "pyc"
    assert sys.version_info >= (3, 11)
    assert identify(b"\x03\xf3\r\n" + bytes(4) + b"c" + bytes(40)).format == "pyc"  # Python 2.7
    assert identify(b"\xa7\x0d\r\n not marshalled code at all").format != "pyc"


@pytest.mark.parametrize(
    "start, name",
    [
        (b"dex\n035\0", "dex"),
        (b"dex\nabc\0", "data"),
        (b"BC\xc0\xde", "llvm-bitcode"),
        (b"\xde\xc0\x17\x0b", "llvm-bitcode"),
        (b"\xfe\xed\xfa\xce\0\0\0\x12", "macho"),
        (b"%PDF-1.7", "pdf"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
    ],
)
def test_other_formats(start, name):
    assert identify(start + bytes(40)).format == name


def test_containers_are_recognised():
    kinds = {name: identify(content).format for name, content in ARCHIVES.items()}
    assert kinds == {
        **{"x.zip": "zip", "x.whl": "zip", "x.tar": "tar", "x.tar.gz": "gzip", "x.tgz": "gzip"},
        **{"x.tar.xz": "xz", "x.tar.bz2": "bzip2", "x.tar.zst": "zstd", "x.a": "ar"},
    }


def test_a_text_cut_inside_a_character_is_still_text():
    long = "é".encode() * 40_000
    assert identify(b"a" + long).format == "text"
    assert identify(b"short \xc3").format == "data"
    assert identify(b"bell \x07").format == "data"


STARTS = (b"", b"MZ", b"\x7fELF", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"dex\n")


@given(data=st.binary(max_size=80), start=st.sampled_from(STARTS))
@example(data=b"", start=b"\x7fELF")
def test_any_bytes_have_an_identity(data, start):
    assert isinstance(identify(start + data), Identity)


def test_every_executable_format_has_a_name_in_the_table():
    assert {form for form, _, _ in EXPECTED.values()} - {"text"} <= set(EXECUTABLE)
