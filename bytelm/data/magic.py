"""What kind of file some bytes are, by our own table of magic numbers.

Two numbers need a second look: CAFEBABE starts both Java classes and fat Mach-O files (told apart
by the word that follows: a count of architectures is small, a class version is at least 45), and MZ
starts plain DOS programs as well as PE files (PE has its signature where the header points).
Nothing beyond the bytes given is read; whatever fits no entry is "text" or "data".
"""

import struct
from dataclasses import dataclass
from typing import Literal

Endian = Literal["little", "big"]

# offset, bytes, name; the first entry that fits wins
_MAGIC = (
    (0, b"\0asm", "wasm"),
    (0, b"BC\xc0\xde", "llvm-bitcode"),
    (0, b"\xde\xc0\x17\x0b", "llvm-bitcode"),
    (0, b"!<arch>\ndebian-binary", "deb"),
    (0, b"!<arch>\n", "ar"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (257, b"ustar", "tar"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF8", "gif"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (8, b"WAVEfmt ", "wav"),
    (8, b"WEBP", "webp"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"ID3", "mp3"),
    (0, b"%PDF-", "pdf"),
    (0, b"PAR1", "parquet"),
    (0, b"SQLite format 3\0", "sqlite"),
    (0, b"GGUF", "gguf"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
)

_ELF_MACHINES = {
    **{2: "sparc", 3: "x86", 4: "m68k", 8: "mips", 15: "hppa", 20: "ppc", 21: "ppc64"},
    **{22: "s390", 40: "arm", 42: "sh", 43: "sparc64", 50: "ia64", 62: "x86-64", 93: "arc"},
    **{183: "arm64", 195: "arc", 243: "riscv", 258: "loongarch", 0x9026: "alpha", 247: "bpf"},
}
_PE_MACHINES = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "arm64", 0x1C0: "arm", 0x1C4: "arm"}
_MACHO_CPUS = {
    **{7: "x86", 0x01000007: "x86-64", 12: "arm", 0x0100000C: "arm64"},
    **{18: "ppc", 0x01000012: "ppc64", 0x0200000C: "arm64_32"},
}
_MACHO: dict[bytes, tuple[Endian, int]] = {
    b"\xfe\xed\xfa\xce": ("big", 32),
    b"\xce\xfa\xed\xfe": ("little", 32),
    b"\xfe\xed\xfa\xcf": ("big", 64),
    b"\xcf\xfa\xed\xfe": ("little", 64),
}
_MOST_ARCHITECTURES = 42  # in a fat Mach-O; a Java class version is 45 or more
# version numbers of .pyc files (Python 2.1 to 2.7, 3.0 on) -> bytes of header
_PYC = {
    range(60_202, 62_212): 8,
    range(3000, 3190): 8,
    range(3190, 3390): 12,
    range(3390, 4000): 16,
}

EXECUTABLE = ("elf", "pe", "macho", "macho-fat", "wasm", "dex", "java-class", "llvm-bitcode", "pyc")


@dataclass(frozen=True)
class Identity:
    """Format name, and for executables the instruction set, word size and byte order."""

    format: str
    isa: str | None = None
    bits: int | None = None
    endian: Endian | None = None


def identify(data: bytes) -> Identity:
    """The format of the file these bytes are, or are the start of.

    >>> identify(b"\\x7fELF\\x02\\x01\\x01" + bytes(9) + b"\\x03\\x00\\x3e\\x00")
    Identity(format='elf', isa='x86-64', bits=64, endian='little')
    >>> identify(b"plain words").format, identify(b"").format, identify(b"\\xff\\xfe\\xfd").format
    ('text', 'empty', 'data')
    """
    if not data:
        return Identity("empty")
    for recognise in (_elf, _macho, _cafebabe, _mz, _dex, _pyc):
        if (found := recognise(data)) is not None:
            return found
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return Identity(name)
    return Identity("text" if looks_like_text(data) else "data")


def looks_like_text(data: bytes) -> bool:
    """Whether the first 64 KiB are UTF-8 without control characters other than blanks."""
    head = data[: 1 << 16]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The cut may go through a character; anything else that does not decode is not text.
        if len(data) <= len(head) or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return not any(c < " " and c not in "\t\n\r\f\x1b" for c in text)


def _unpack(kind: str, data: bytes, offset: int) -> int | None:
    """One number, or None beyond the end."""
    if offset + struct.calcsize(kind) > len(data):
        return None
    return struct.unpack_from(kind, data, offset)[0]


def _elf(data: bytes) -> Identity | None:
    if not data.startswith(b"\x7fELF") or len(data) < 20:
        return None
    bits = {1: 32, 2: 64}.get(data[4])
    endians: dict[int, Endian] = {1: "little", 2: "big"}
    endian = endians.get(data[5])
    if bits is None or endian is None:
        return None
    machine = int.from_bytes(data[18:20], endian)
    return Identity("elf", _ELF_MACHINES.get(machine, f"elf-{machine}"), bits, endian)


def _macho(data: bytes) -> Identity | None:
    if data[:4] not in _MACHO or len(data) < 8:
        return None
    endian, bits = _MACHO[data[:4]]
    cpu = int.from_bytes(data[4:8], endian)
    return Identity("macho", _MACHO_CPUS.get(cpu, f"cpu-{cpu:#x}"), bits, endian)


def _cafebabe(data: bytes) -> Identity | None:
    if data[:4] not in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf") or len(data) < 8:
        return None
    follows = int.from_bytes(data[4:8], "big")
    if 0 < follows <= _MOST_ARCHITECTURES:
        return Identity("macho-fat")
    return Identity("java-class") if data[3] == 0xBE and follows & 0xFFFF >= 45 else None


def _mz(data: bytes) -> Identity | None:
    if not data.startswith(b"MZ"):
        return None
    header = _unpack("<I", data, 0x3C)
    if header is None or header < 4 or data[header : header + 4] != b"PE\0\0":
        return Identity("dos-mz") if len(data) >= 28 and not looks_like_text(data) else None
    machine = _unpack("<H", data, header + 4)
    magic = _unpack("<H", data, header + 24)
    bits = {0x10B: 32, 0x20B: 64}.get(magic or 0)
    return Identity("pe", _PE_MACHINES.get(machine or 0, f"pe-{machine}"), bits, "little")


def _dex(data: bytes) -> Identity | None:
    found = data.startswith(b"dex\n") and data[4:7].isdigit() and data[7:8] == b"\0"
    return Identity("dex") if found else None


def _pyc(data: bytes) -> Identity | None:
    """A version number, \\r\\n, then a marshalled code object after 8, 12 or 16 bytes of header."""
    version = _unpack("<H", data, 0)
    start = next((size for versions, size in _PYC.items() if version in versions), None)
    if start is None or data[2:4] != b"\r\n":
        return None
    return Identity("pyc") if data[start : start + 1] in (b"c", b"\xe3") else None
