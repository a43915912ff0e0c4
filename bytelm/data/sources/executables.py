"""Sections of ELF, PE and Mach-O files as documents, with file offsets and virtual addresses.

lief (extra `binaries`) reads the section tables only; the bytes are cut from the file itself and
clipped to it, so a header that lies cannot invent data. Sections without content in the file are
passed over. What is not such an executable, or has no section table that can be read, passes
through whole: no document is lost to a damaged header. Byte k of a section is byte offset + k of
its file, and lies at address + k when loaded (PE: at the preferred base). Sections that overlap so
much that they are more than `_MOST_TIMES` the file are a bomb: such a file is taken whole, too.
Files that should have been cut and were not are noted.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bytelm.data.magic import identify
from bytelm.data.sources.base import Document, Reading, Source
from bytelm.errors import DataError, MissingExtraError

Selection = Literal["code", "each"]

SECTIONED = ("elf", "pe", "macho", "macho-fat")
_MOST_TIMES = 2  # honest sections hardly overlap
_PE_CODE = 0x20000000  # IMAGE_SCN_MEM_EXECUTE
_ELF_CODE = 0x4  # SHF_EXECINSTR
_MACHO_CODE = 0x80000000 | 0x400  # S_ATTR_PURE_INSTRUCTIONS, S_ATTR_SOME_INSTRUCTIONS


@dataclass(frozen=True, kw_only=True)
class Section:
    """A named range [offset, offset + size) of a file, its load address, and if it is executed."""

    name: str
    offset: int
    size: int
    address: int
    code: bool


@dataclass(frozen=True)
class SectionSource(Source):
    """The sections of the executables in `source`: all ("each") or those with instructions."""

    source: Source
    selection: Selection
    reading: Reading = field(default_factory=Reading)

    def __iter__(self) -> Iterator[Document]:
        for document in self.source:
            kind = identify(document.head()).format
            if kind not in SECTIONED:
                yield document
                continue
            document, place = Document(document.data, document.meta), _place(document)
            try:
                found = _bounded(sections(document.data), len(document.data))
            except DataError as error:
                self.reading.note("unsplit executable", place, why=str(error))
                yield document
                continue
            wanted = [s for s in found if s.size and (s.code or self.selection == "each")]
            if not wanted:
                self.reading.note("executable without code", place)
            for section in wanted:
                yield _cut(document, section, media=kind)

    def leaves(self) -> Iterator[Source]:
        for leaf in self.source.leaves():
            yield SectionSource(leaf, self.selection, self.reading)

    def stamp(self) -> str | None:
        return self.source.stamp()


def _bounded(found: list[Section], size: int) -> list[Section]:
    """The sections of a file of `size` bytes; `DataError` for none, or a bomb."""
    total = sum(section.size for section in found)
    if not any(section.size for section in found):
        raise DataError("it has no sections with content")
    if total > _MOST_TIMES * size:
        raise DataError(
            f"its {len(found)} sections overlap: together they have {total:,} bytes, the file "
            f"{size:,}"
        )
    return found


def _place(document: Document) -> str:
    """Where a document is, for a message."""
    source, path = (str(document.meta.get(name) or "") for name in ("source", "path"))
    return f"{source}, {path}" if source and path and not source.endswith(path) else source or path


def _cut(document: Document, section: Section, *, media: str) -> Document:
    meta = {
        **document.meta,
        "path": f"{document.meta.get('path') or ''}:{section.name}",
        "media": media,
        "offset": section.offset,
        "address": section.address,
    }
    return Document(document.data[section.offset : section.offset + section.size], meta)


def sections(data: bytes) -> list[Section]:
    """The sections of one executable, in stored order; `DataError` if it cannot be parsed."""
    try:
        import lief
    except ImportError as error:
        raise MissingExtraError("lief", "binaries", "reading sections of executables") from error
    lief.logging.disable()
    kind = identify(data).format
    read = {"elf": _elf_sections, "pe": _pe_sections}.get(kind, _macho_sections)
    try:
        with warnings.catch_warnings():  # it warns of section types it does not know
            warnings.simplefilter("ignore", RuntimeWarning)
            found = read(lief, data)
    except (ValueError, RuntimeError, OverflowError) as error:  # values outside lief's enumerations
        raise DataError(f"the file starts like {kind} but cannot be parsed: {error}") from error
    if found is None:
        raise DataError(f"the file starts like {kind} but cannot be parsed")
    return [_clip(section, len(data)) for section in found if section.offset > 0]


def _elf_sections(lief: Any, data: bytes) -> list[Section] | None:
    parsed = lief.ELF.parse(data)
    if parsed is None:
        return None
    nothing = lief.ELF.Section.TYPE.NOBITS
    return [_elf(section) for section in parsed.sections if section.type != nothing]


def _pe_sections(lief: Any, data: bytes) -> list[Section] | None:
    parsed = lief.PE.parse(data)
    if parsed is None:
        return None
    return [_pe(section, parsed.optional_header.imagebase) for section in parsed.sections]


def _macho_sections(lief: Any, data: bytes) -> list[Section] | None:
    parsed = lief.MachO.parse(data)
    if parsed is None:
        return None
    return [_macho(s, binary.fat_offset) for binary in parsed for s in binary.sections]


def _clip(section: Section, length: int) -> Section:
    size = min(section.size, max(length - section.offset, 0))
    return Section(
        name=section.name,
        offset=section.offset,
        size=size,
        address=section.address,
        code=section.code,
    )


def _elf(section: Any) -> Section:
    return Section(
        name=str(section.name),
        offset=section.offset,
        size=section.size,
        address=section.virtual_address,
        code=bool(section.flags & _ELF_CODE),
    )


def _pe(section: Any, base: int) -> Section:
    # What lies beyond the virtual size is padding to the file's alignment.
    stored = section.sizeof_raw_data
    return Section(
        name=str(section.name),
        offset=section.pointerto_raw_data,
        size=min(stored, section.virtual_size) if section.virtual_size else stored,
        address=base + section.virtual_address,
        code=bool(section.characteristics & _PE_CODE),
    )


def _macho(section: Any, fat_offset: int) -> Section:
    # Zero-filled sections have offset 0; they must not become the start of the fat slice.
    return Section(
        name=f"{section.segment_name},{section.name}",
        offset=section.offset + fat_offset if section.offset else 0,
        size=section.size,
        address=section.virtual_address,
        code=bool(int(section.flags) & _MACHO_CODE),
    )
