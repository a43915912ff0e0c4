"""What a collection of documents is made of: the numbers behind `bytelm data inspect`.

Counts, sizes, the byte histogram, formats and duplicates are over everything. Scripts and
compressibility are over the first `sample_bytes` of the joined documents, because counting
characters and xz take seconds per megabyte; the report says how much that was. Scripts are counted
in documents that are UTF-8 as a whole, so that code does not pass for letters.
"""

import codecs
import gzip
import hashlib
import lzma
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard

from bytelm.data.magic import identify
from bytelm.data.sources import Document

SAMPLE_BYTES = 8 << 20


@dataclass
class Inspection:
    """Running totals over documents; `report` gives the numbers."""

    sample_bytes: int = SAMPLE_BYTES
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    formats: Counter[str] = field(default_factory=Counter)
    architectures: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    duplicate_bytes: int = 0
    utf8_documents: int = 0
    utf8_bytes: int = 0
    groups: set[str] = field(default_factory=set)
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    _seen: set[bytes] = field(default_factory=set)
    _sample: bytearray = field(default_factory=bytearray)
    _text: bytearray = field(default_factory=bytearray)

    def add(self, document: Document) -> None:
        """Count one document, block by block: its size does not matter."""
        digest, decoder, is_text = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), True
        start, head, size = bytearray(), b"", 0
        for block in document.blocks():
            head = head or block
            size += len(block)
            digest.update(block)
            self.histogram += np.bincount(np.frombuffer(block, np.uint8), minlength=256)
            is_text = is_text and _decodes(decoder, block)
            start += block[: self.sample_bytes - len(start)]
        self.sizes.append(size)
        identity = identify(head)
        self.formats[identity.format] += 1
        if identity.isa is not None:
            self.architectures[f"{identity.format} {identity.isa}"] += 1
        self.groups.add(str(document.meta.get("group")))
        self._count_duplicate(digest.digest(), size)
        if is_text and _decodes(decoder, b"", final=True):
            self.utf8_documents += 1
            self.utf8_bytes += size
            self._text += start[: self.sample_bytes - len(self._text)]
        self._sample += start[: self.sample_bytes - len(self._sample)]

    def _count_duplicate(self, digest: bytes, size: int) -> None:
        if digest in self._seen:
            self.duplicates += 1
            self.duplicate_bytes += size
        self._seen.add(digest)

    def report(self) -> dict[str, Any]:
        """Everything, as one JSON object. Entropy and compression in bits per byte."""
        sizes = np.array(self.sizes, dtype=np.int64)
        total = int(sizes.sum())
        sample = bytes(self._sample)
        return {
            "documents": len(sizes),
            "bytes": total,
            "groups": len(self.groups),
            "empty_documents": int((sizes == 0).sum()),
            "document_bytes": _summary(sizes),
            "byte_entropy": entropy(self.histogram),
            "distinct_bytes": int((self.histogram > 0).sum()),
            "duplicate_documents": self.duplicates,
            "duplicate_bytes": self.duplicate_bytes,
            "utf8_documents": _share(self.utf8_documents, len(sizes)),
            "utf8_bytes": _share(self.utf8_bytes, total),
            "formats": dict(self.formats.most_common()),
            "architectures": dict(self.architectures.most_common()),
            "sample_bytes": len(sample),
            "scripts": scripts(bytes(self._text)),
            "bits_per_byte": compressibility(sample),
        }


def inspect(documents: Iterable[Document], *, sample_bytes: int = SAMPLE_BYTES) -> dict[str, Any]:
    """The report on some documents.

    >>> report = inspect([Document(b"aabb"), Document(b"aabb")])
    >>> report["documents"], report["byte_entropy"], report["duplicate_documents"]
    (2, 1.0, 1)
    """
    totals = Inspection(sample_bytes=sample_bytes)
    for document in documents:
        totals.add(document)
    return totals.report()


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def entropy(histogram: np.ndarray) -> float:
    """Bits per byte of a byte histogram, order 0.

    >>> entropy(np.array([1, 1, 2]))
    1.5
    """
    counts = histogram[histogram > 0]
    if not len(counts):
        return 0.0
    share = counts / counts.sum()
    return abs(float(-(share * np.log2(share)).sum()))


def scripts(sample: bytes) -> dict[str, float]:
    """Share of each writing system among the letters of UTF-8 text.

    >>> scripts("aбв".encode())
    {'CYRILLIC': 0.6667, 'LATIN': 0.3333}
    """
    # The sample may end inside a character; U+FFFD, which it then becomes, is no letter.
    counts: Counter[str] = Counter()
    for character, count in Counter(sample.decode("utf-8", "replace")).items():
        if character.isalpha():
            counts[_script(character)] += count
    total = counts.total()
    return {name: _share(count, total) for name, count in counts.most_common(16)}


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    """The writing system as the first word of the character's name; good for all major ones."""
    return unicodedata.name(character, "UNNAMED").split(" ")[0].split("-")[0]


def compressibility(data: bytes) -> dict[str, float]:
    """Bits per byte that gzip -9, xz -9e and zstd -19 need; empty for no data."""
    if not data:
        return {}
    packed = {
        "gzip": gzip.compress(data, 9),
        "xz": _xz(data),
        "zstd": zstandard.ZstdCompressor(level=19).compress(data),
    }
    return {name: round(8 * len(out) / len(data), 4) for name, out in packed.items()}


def _xz(data: bytes) -> bytes:
    """xz -9e with a dictionary no larger than the data: one of 64 MiB costs ten times that."""
    size = min(max(len(data), 4096), 64 << 20)
    preset = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=[preset])


def _summary(sizes: np.ndarray) -> dict[str, float]:
    if not len(sizes):
        return {}
    low, middle, high = np.percentile(sizes, [5, 50, 95])
    return {
        **{"min": int(sizes.min()), "p5": float(low), "median": float(middle)},
        **{"mean": round(float(sizes.mean()), 1), "p95": float(high), "max": int(sizes.max())},
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
