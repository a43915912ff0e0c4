"""A source of another package: one file and one entry point, found by suffix, scheme or magic."""

import sys
from pathlib import Path

import pytest

from bytelm.data import open_source
from tests.data.containers import zip_of

MODULE = """
from dataclasses import dataclass
from pathlib import Path

from bytelm.data.sources import Document, OneFile, Source
from bytelm.data.sources.archives import ArchiveSource


@dataclass(frozen=True)
class Lines(OneFile):
    path: Path
    suffixes = (".lines",)
    magic = ((2, b"LINES\\n"),)

    @classmethod
    def open(cls, spec, *, reading):
        return cls(Path(spec))

    def __iter__(self):
        for number, line in enumerate(self.path.read_bytes().splitlines()):
            yield Document(line, {"path": str(number)})


class Count(Source):
    scheme = "count"

    def __init__(self, stop):
        self.stop = stop

    @classmethod
    def open(cls, spec, *, reading):
        return cls(int(spec.partition(":")[2]))

    def __iter__(self):
        return (Document(b"%d" % number) for number in range(self.stop))


class Halves(ArchiveSource):
    suffixes = (".halves",)

    @staticmethod
    def members(stream, name, budget):
        data = budget.read(stream)
        yield "left", data[: len(data) // 2]
        yield "right", data[len(data) // 2 :]
"""


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "foreign_sources.py").write_text(MODULE)
    info = folder / "foreign_sources-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-sources\nVersion: 1.0\n")
    entries = {"lines": "Lines", "count": "Count", "halves": "Halves"}
    lines = [f"{name} = foreign_sources:{kind}" for name, kind in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[bytelm.sources]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "foreign_sources", raising=False)


def read(spec: object) -> list[bytes]:
    return [document.data for document in open_source(spec)]


def test_it_is_found_by_the_suffix_in_a_folder_among_ours(tmp_path: Path):
    (tmp_path / "a.lines").write_bytes(b"one\ntwo")
    (tmp_path / "b.txt").write_bytes(b"three\n")
    assert read(tmp_path) == [b"one", b"two", b"three\n"]


def test_it_is_found_by_its_scheme_and_by_its_magic_number(tmp_path: Path):
    (tmp_path / "unnamed").write_bytes(b"# LINES\nx")
    (tmp_path / "short").write_bytes(b"#")
    assert read("count:3") == [b"0", b"1", b"2"]
    assert read(tmp_path) == [b"#", b"# LINES", b"x"]


def test_an_archive_format_is_opened_inside_ours(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zip_of({"in.halves": b"abcd", "plain": b"p"}))
    assert [(d.meta["path"], d.data) for d in open_source(tmp_path / "a.zip")] == [
        ("in.halves!left", b"ab"),
        ("in.halves!right", b"cd"),
        ("plain", b"p"),
    ]
