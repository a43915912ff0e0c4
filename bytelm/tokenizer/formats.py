"""Names the class of an executable (container and instruction set) from its first bytes.

Binary BPE is reported and balanced by these classes. Only magic numbers and header fields are
read; nothing is parsed further and nothing is ever run. CAFEBABE opens both a fat Mach-O and a Java
class: a fat file counts its architectures there (a small number), a class its version (45 and up).
"""

import struct

_ELF = {3: "x86", 8: "mips", 10: "mips", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm",
        62: "x86-64", 183: "arm64", 243: "riscv"}  # fmt: skip
_PE = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "arm64", 0x1C0: "arm", 0x1C4: "arm"}
_MACHO = {7: "x86", 0x01000007: "x86-64", 12: "arm", 0x0100000C: "arm64"}
_THIN_MACHO = (b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")


def executable_class(data: bytes) -> str | None:
    """`elf-x86-64`, `pe-arm64`, `macho-fat`, `wasm`, `dex`, `jvm-class`, `apk`, ... or None.

    >>> executable_class(b"\\0asm" + bytes(8))
    'wasm'
    >>> executable_class(b"plain text") is None
    True
    """
    if data[:4] == b"\x7fELF" and len(data) >= 20:
        order = ">" if data[5] == 2 else "<"
        return _name("elf", _ELF, struct.unpack_from(order + "H", data, 18)[0])
    if data[:2] == b"MZ" and len(data) >= 64:
        return _portable_executable(data)
    if data[:4] in _THIN_MACHO and len(data) >= 8:
        return _name("macho", _MACHO, struct.unpack_from("<I", data, 4)[0])
    if data[:4] == b"\xca\xfe\xba\xbe" and len(data) >= 8:
        return "macho-fat" if struct.unpack_from(">I", data, 4)[0] < 45 else "jvm-class"
    if data[:4] == b"\0asm":
        return "wasm"
    if data[:4] == b"dex\n":
        return "dex"
    if data[:4] == b"PK\x03\x04" and b"AndroidManifest.xml" in data:
        return "apk"
    return None


def _portable_executable(data: bytes) -> str | None:
    (header,) = struct.unpack_from("<I", data, 60)
    if data[header : header + 4] != b"PE\0\0" or header + 6 > len(data):
        return None
    return _name("pe", _PE, struct.unpack_from("<H", data, header + 4)[0])


def _name(container: str, machines: dict[int, str], machine: int) -> str:
    return f"{container}-{machines.get(machine, 'other')}"


def section_starts(data: bytes) -> list[int]:
    """File offsets where a section of an ELF or PE file, or a segment of a thin Mach-O, begins.

    Damaged headers give the offsets that could be read; other files give none.
    """
    kind = executable_class(data) or ""
    reader = {"elf": _elf_sections, "pe": _pe_sections, "macho": _macho_segments}
    try:
        starts = reader[kind.split("-")[0]](data) if kind.split("-")[0] in reader else []
    except struct.error:
        starts = []
    return sorted({start for start in starts if 0 < start < len(data)})


def _elf_sections(data: bytes) -> list[int]:
    order, wide = (">" if data[5] == 2 else "<"), data[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)
    size, count = struct.unpack_from(order + "HH", data, 58 if wide else 46)
    field = order + ("Q" if wide else "I")
    offset = 24 if wide else 16
    return [struct.unpack_from(field, data, table + i * size + offset)[0] for i in range(count)]


def _pe_sections(data: bytes) -> list[int]:
    (header,) = struct.unpack_from("<I", data, 60)
    count, optional = struct.unpack_from("<H12xH", data, header + 6)
    table = header + 24 + optional
    return [struct.unpack_from("<I", data, table + 40 * i + 20)[0] for i in range(count)]


def _macho_segments(data: bytes) -> list[int]:
    if data[:4] not in _THIN_MACHO:
        return []
    wide = data[:4] == _THIN_MACHO[1]
    (commands,) = struct.unpack_from("<I", data, 16)
    at, starts = (32 if wide else 28), []
    for _ in range(commands):
        command, size = struct.unpack_from("<II", data, at)
        if command == (0x19 if wide else 0x01):
            starts.append(
                struct.unpack_from("<Q" if wide else "<I", data, at + (40 if wide else 32))[0]
            )
        if size < 8:
            break
        at += size
    return starts
