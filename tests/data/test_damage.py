"""Nothing silently lost: after any single damage a file gives an error, or exactly its documents.

Damages are a flipped bit, a cut, a removed and a doubled block, anywhere in the file. By definition
nobody can tell some of them, and then the right answer is what the damaged file says:

- a file that is still whole: one of several compressed streams is cut off, gone or doubled as a
  whole, or lines of JSON are cut between two of them;
- contents without a checksum: of members of plain tar and ar files, of texts in plain JSON lines.
  There only the number of documents (and for tar and ar their lengths) must hold. Blocks are not
  removed from or doubled in plain JSON lines, for joined halves of two lines are a line;
- members that are gone from a plain tar or ar file together with their headers (removed blocks are
  shorter than a member there; an ar file, which has no end mark, may also be cut between two);
- names, which are metadata, and are not compared.

A file whose first bytes are gone may also be taken as it stands, for nothing tells it from one with
a wrong name: it is then noted, as everything here that is not an error must be.
"""

import bz2
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bytelm.data import Reading, open_source
from bytelm.errors import DataError
from tests.data.containers import ar_of, tar_of, zip_of
from tests.data.survival import survives

PROSE = [b"the quick brown fox %d " % n * (60 + 7 * n) for n in range(4)]
NOISE = Random(0).randbytes(1300)
DOCUMENTS = [*PROSE, NOISE]
MEMBERS = {f"in/{n}.txt": data for n, data in enumerate(DOCUMENTS)}
LINES = b"".join(
    json.dumps({"n": n, "text": d.decode()}).encode() + b"\n" for n, d in enumerate(PROSE)
)
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
PACKERS = {
    ".gz": partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": ZSTD.compress,
}
Packer = Callable[[bytes], bytes]
Judge = Callable[[bytes, list[bytes]], bool]


@dataclass(frozen=True)
class Seed:
    """A file that holds `documents`; `unknowable` says which wrong answers nobody can help."""

    name: str
    data: bytes
    documents: list[bytes]
    unknowable: Judge = lambda damaged, found: False
    longest: int = 1 << 20  # bytes of a block that is removed or doubled; 0: none is


def streams(name: str, pack: Packer, parts: list[bytes], split: Judge) -> Seed:
    return Seed(name, b"".join(map(pack, parts)), [b"".join(parts)], split)


def whole_streams(pack: Packer, parts: list[bytes], lines: bool = False) -> Judge:
    """Streams that are cut off, gone or doubled as a whole: then nothing in the file is damaged."""
    packed = {pack(part): part for part in parts}

    def judge(damaged: bytes, found: list[bytes]) -> bool:
        kept = []
        while damaged:
            stream = next((s for s in packed if damaged.startswith(s)), None)
            if stream is None:
                return False
            kept.append(packed[stream])
            damaged = damaged[len(stream) :].lstrip(b"\0")  # padding, which gzip allows
        expected = (
            [json.loads(line)["text"].encode() for line in kept] if lines else [b"".join(kept)]
        )
        return bool(kept) and found == expected

    return judge


def same_lengths(damaged: bytes, found: list[bytes]) -> bool:
    """Damaged contents that have no checksum."""
    return [len(data) for data in found] == [len(data) for data in DOCUMENTS]


def cut_between_members(archive: bytes) -> Judge:
    """Damaged contents, or an ar file cut between two members: it has no end mark, so what is left
    is a whole archive, with or without the blank line that pads a member of odd length."""
    borders = [len(ar_of(dict(list(MEMBERS.items())[:n]))) for n in range(len(MEMBERS) + 1)]

    def judge(damaged: bytes, found: list[bytes]) -> bool:
        border = borders[len(found)] if len(found) < len(borders) else -2
        whole = archive.startswith(damaged) and len(damaged) in (border, border - 1)
        return (whole and found == DOCUMENTS[: len(found)]) or same_lengths(damaged, found)

    return judge


def joined(tar: bytes) -> Judge:
    """Two tar files: damaged contents, or a cut behind the end mark of the first."""
    lengths = [len(data) for data in DOCUMENTS * 2]

    def judge(damaged: bytes, found: list[bytes]) -> bool:
        whole = tar.startswith(damaged) and found == DOCUMENTS
        return whole or [len(data) for data in found] == lengths

    return judge


def json_lines(damaged: bytes, found: list[bytes]) -> bool:
    """Damaged text, or a cut between lines."""
    whole = [line for line in damaged.split(b"\n") if line.strip()]
    if LINES.startswith(damaged):
        return found == PROSE[: len(whole)]
    return len(found) == len(PROSE)


def table(**options: object) -> bytes:
    out = io.BytesIO()
    rows = pa.table({"text": pa.array(DOCUMENTS * 4, pa.binary()), "n": range(20)})
    parquet.write_table(rows, out, row_group_size=7, write_page_checksum=True, **options)
    return out.getvalue()


def seeds() -> Iterator[Seed]:
    tar = tar_of(MEMBERS)
    yield Seed("s.zip", zip_of(MEMBERS), DOCUMENTS)
    yield Seed("stored.zip", zip_of(MEMBERS, method=0), DOCUMENTS)
    nested = zip_of({"in.zip": zip_of(MEMBERS, method=0), "after.txt": b"after"}, method=0)
    yield Seed("nested.whl", nested, [*DOCUMENTS, b"after"])
    yield Seed("s.tar", tar, DOCUMENTS, same_lengths, longest=1024)
    yield Seed("joined.tar", tar + tar, DOCUMENTS * 2, joined(tar), longest=1024)
    ar = ar_of(MEMBERS)
    yield Seed("s.a", ar, DOCUMENTS, cut_between_members(ar), longest=1024)
    for suffix, pack in PACKERS.items():
        parts = [*PROSE, NOISE]
        yield streams(f"s.txt{suffix}", pack, parts, whole_streams(pack, parts))
        yield Seed(f"s.tar{suffix}", pack(tar), DOCUMENTS)
        lines = LINES.splitlines(keepends=True)
        data = b"".join(map(pack, lines))
        yield Seed(f"s.jsonl{suffix}", data, PROSE, whole_streams(pack, lines, lines=True))
    yield Seed("s.jsonl", LINES, PROSE, json_lines, longest=0)
    yield Seed("s.parquet", table(), DOCUMENTS * 4)
    yield Seed("plain.parquet", table(compression="none", use_dictionary=False), DOCUMENTS * 4)


SEEDS = {seed.name: seed for seed in seeds()}


def damages(seed: Seed, random: Random, count: int) -> Iterator[bytes]:
    """`count` files with one damage each; half of them near the ends and the borders of blocks."""
    data, size = seed.data, len(seed.data)
    for _ in range(count):
        near = random.choice((0, size, random.randrange(size) // 512 * 512))
        at = random.choice((random.randrange(size), near + random.randint(-64, 64)))
        at = min(max(at, 0), size - 1)
        length = random.choice((1, 2, 4, 16, 60, 200, 512, 1024, random.randint(1, size - 1)))
        length = min(length, size - 1)
        length = min(length, seed.longest)
        match random.randrange(4 if seed.longest else 2):
            case 0:
                flipped = data[at] ^ 1 << random.randrange(8)
                yield data[:at] + bytes([flipped]) + data[at + 1 :]
            case 1:
                yield data[:at]
            case 2:
                yield data[:at] + data[at + length :]
            case 3:
                yield data[: at + length] + data[at:]


def judged(seed: Seed, folder: Path) -> Callable[[bytes], None]:
    """Reads a damaged file; `AssertionError` if something is lost silently."""
    path = folder / seed.name

    def parse(damaged: bytes) -> None:
        path.write_bytes(damaged)
        reading = Reading()
        try:
            found = [document.data for document in open_source(path, reading=reading)]
        except DataError as error:
            assert str(path) in str(error), error
            return
        if found == seed.documents or (found == [damaged] and reading.notes.counts):
            return
        assert seed.unknowable(damaged, found), f"{[len(d) for d in found]} {reading.notes.lines()}"

    return parse


@pytest.mark.parametrize("name", SEEDS)
def test_an_undamaged_file_gives_its_documents(tmp_path, name):
    (tmp_path / name).write_bytes(SEEDS[name].data)
    reading = Reading(strict=True)
    found = [document.data for document in open_source(tmp_path / name, reading=reading)]
    assert found == SEEDS[name].documents


@pytest.mark.parametrize("name", SEEDS)
def test_any_single_damage_is_an_error_or_changes_nothing(tmp_path, name):
    seed = SEEDS[name]
    survives(judged(seed, tmp_path), damages(seed, Random(name), 40))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SEEDS)
def test_a_hundred_thousand_damages_lose_nothing_silently(tmp_path, name):
    """10^5 in all formats together; BYTELM_DAMAGES is another number."""
    count = int(os.environ.get("BYTELM_DAMAGES", "100000")) // len(SEEDS) + 1
    seed = SEEDS[name]
    survives(judged(seed, tmp_path), damages(seed, Random(f"more {name}"), count))
