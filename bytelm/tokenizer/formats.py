"""Classes of executables, by which Binary BPE is balanced and reported; where sections begin.

A class is container and instruction set. What a file is, is told by `bytelm.data.magic`; an Android
package is a zip archive that holds a manifest.
"""

from bytelm.data.magic import identify
from bytelm.data.sources.executables import SECTIONED, sections
from bytelm.errors import DataError

_WITH_ISA = ("elf", "pe", "macho")
_WITHOUT = {"macho-fat": "macho-fat", "wasm": "wasm", "dex": "dex", "java-class": "jvm-class"}


def executable_class(data: bytes) -> str | None:
    """`elf-x86-64`, `pe-arm64`, `macho-fat`, `wasm`, `dex`, `jvm-class`, `apk`, ... or None.

    >>> executable_class(b"\\0asm" + bytes(8))
    'wasm'
    >>> executable_class(b"plain text") is None
    True
    """
    found = identify(data)
    if found.format in _WITH_ISA:
        return f"{found.format}-{found.isa or 'other'}"
    if found.format == "zip" and b"AndroidManifest.xml" in data:
        return "apk"
    return _WITHOUT.get(found.format)


def section_starts(data: bytes) -> list[int]:
    """File offsets where a section of an ELF, PE or Mach-O file begins; none for other files, nor
    for a section table that cannot be read."""
    if identify(data).format not in SECTIONED:
        return []
    try:
        found = sections(data)
    except DataError:
        return []
    return sorted({section.offset for section in found if 0 < section.offset < len(data)})
