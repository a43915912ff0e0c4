"""Damaged files of every kind, by the thousand: a document or a `DataError`, in bounded time.

What they give is judged in test_damage.py, by single damages.
"""

import io
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from pyarrow import parquet

from bytelm.data import Reading, open_source
from bytelm.data.magic import identify
from bytelm.data.sources.executables import sections
from tests.data.containers import ARCHIVES, ar_of, tar_of
from tests.data.survival import survives
from tests.data.test_sources import LINES, PACKERS

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "executables"


def mutated(seed: bytes, random: Random) -> bytes:
    """`seed` with up to eight of the changes that break parsers."""
    data = bytearray(seed)
    for _ in range(random.randint(1, 8)):
        head = random.random() < 0.7  # headers are where damage matters
        at = random.randrange(min(len(data), 1024) if head else len(data)) if data else 0
        match random.randrange(6):
            case 0:
                data[at : at + 1] = random.randbytes(1)
            case 1:
                number = random.choice((0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63))
                size = 8 if number > 0xFFFFFFFF else random.choice((4, 8))
                data[at : at + size] = struct.pack("<Q", number)[:size]
            case 2:
                del data[at : at + random.randint(1, 64)]
            case 3:
                data[at:at] = data[at : at + random.randint(1, 64)]
            case 4:
                del data[random.randrange(len(data) + 1) :]
            case 5:
                data[at : at + 1] = bytes([(data[at] ^ 1 << random.randrange(8)) if data else 0])
    return bytes(data)


def read_as(name: str, **reading: str) -> Callable[[bytes], None]:
    """A parser that reads bytes as a file of this name."""
    folder = Path(tempfile.mkdtemp())

    def parse(data: bytes) -> None:
        (folder / name).write_bytes(data)
        for document in open_source(folder / name, reading=Reading(**reading)):
            identify(document.data)

    return parse


def table() -> bytes:
    out = io.BytesIO()
    rows = pa.table({"text": ["some", "words", ""] * 20, "n": list(range(60))})
    parquet.write_table(rows, out, row_group_size=7)
    return out.getvalue()


def executables() -> dict[str, bytes]:
    """One small file of each kind that is bundled, and a fat file made of two."""
    thin = {p.name: p.read_bytes() for p in sorted(SAMPLES.glob("xxhash/*")) if p.suffix}
    thin["elf"] = (SAMPLES / "heldout-markupsafe" / "manylinux2014_x86_64.so").read_bytes()
    half = thin["macosx_11_0_arm64.so"]
    fat = struct.pack(">2I5I", 0xCAFEBABE, 1, 0x0100000C, 0, 1 << 14, len(half), 14)
    return {**thin, "fat": fat.ljust(1 << 14, b"\0") + half}


SEEDS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    **{f"sections-{name}": (sections, data) for name, data in executables().items()},
    **{name: (read_as(name), data) for name, data in ARCHIVES.items()},
    "x.deb": (
        read_as("x.deb"),
        ar_of({"debian-binary": b"2.0\n", "data.tar": tar_of({"a": b"b"})}),
    ),
    **{f"r.jsonl{s}": (read_as(f"r.jsonl{s}"), pack(LINES)) for s, pack in PACKERS.items()},
    **{f"b.txt{s}": (read_as(f"b.txt{s}"), pack(LINES)) for s, pack in PACKERS.items() if s},
    "t.parquet": (read_as("t.parquet"), table()),
}


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_neither_crash_nor_hang(name):
    parse, seed = SEEDS[name]
    random = Random(name)
    survives(parse, (mutated(seed, random) for _ in range(60)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SEEDS)
def test_thousands_of_damaged_files_neither_crash_nor_hang(name):
    parse, seed = SEEDS[name]
    random = Random(f"more {name}")
    survives(parse, (mutated(seed, random) for _ in range(1000)))


@pytest.mark.slow
def test_random_bytes_behind_a_magic_number_are_only_bytes():
    starts = [seed[:n] for _, seed in SEEDS.values() for n in (4, 8, 20, 64)]
    random = Random(0)
    inputs = (
        random.choice(starts) + random.randbytes(random.randrange(300)) for _ in range(20_000)
    )
    survives(lambda data: (identify(data), sections(data)), inputs)
