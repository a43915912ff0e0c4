"""Documents in blocks: whatever the size of a block, the same corpus and the same figures, and
memory that does not grow with the file."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data import Corpus, Document, open_source
from bytelm.data.corpus import build as build_module
from bytelm.data.corpus import documents as stored_module
from bytelm.data.corpus.build import build
from bytelm.data.corpus.journal import JOURNAL
from bytelm.data.inspect import Inspection, inspect
from bytelm.data.sources import MemorySource
from bytelm.data.sources import document as document_module
from bytelm.data.sources.document import BLOCK, LazyDocument, file_document

# bytes of which no head looks like any format
BODIES = st.lists(st.text("\xfa\xfb", max_size=30).map(lambda t: t.encode("latin-1")), max_size=8)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """For the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def block(monkeypatch):
    """Make blocks of a few bytes."""

    def make(size: int) -> None:
        for module in (document_module, stored_module):
            monkeypatch.setattr(module, "BLOCK", size)

    return make


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(bodies=BODIES, size=st.integers(1, 12), shard=st.integers(1, 40), seed=st.integers(0, 99))
def test_blocks_of_any_size_give_the_same_corpus_and_figures(
    bodies, size, shard, seed, tmp_path_factory
):
    """Around every border of a block and of a shard, with duplicates among them."""
    root = tmp_path_factory.mktemp("blocks")
    bodies = [b"\xfa\xfb" * 5, *bodies, *[body for i, body in enumerate(bodies) if (seed >> i) & 1]]
    whole = build(MemorySource(bodies), root / "whole", shard_bytes=shard)
    expected = inspect([Document(body) for body in bodies], sample_bytes=20)
    with pytest.MonkeyPatch.context() as patch:
        for module in (document_module, stored_module):
            patch.setattr(module, "BLOCK", size)
        cut = build(MemorySource(bodies), root / "cut", shard_bytes=shard)
        assert (cut.documents, cut.duplicates) == (whole.documents, whole.duplicates)
        assert inspect([Document(body) for body in bodies], sample_bytes=20) == expected
        again = build(root / "cut", root / "again", shard_bytes=shard)
        files = [content(root / name) for name in ("whole", "cut", "again")]
        assert files[0] == files[1]
        for file in files[2].keys() - {"corpus.json"}:  # which counts the duplicates left out
            assert files[2][file] == files[0][file]
        assert [d.data for d in open_source(again.path)] == list(dict.fromkeys(bodies))
        for i, body in enumerate(bodies):
            path = root / f"{i}.bin"
            path.write_bytes(body)
            document = file_document(path, {})
            assert document.data == body and document.head() == body[:size]
            assert [len(b) <= size for b in document.blocks()] == [True] * -(-len(body) // size)


def test_a_build_that_stops_inside_a_long_document_resumes(tmp_path, block, monkeypatch):
    monkeypatch.setattr(build_module, "MARK_SECONDS", 0.0)
    block(4)
    names = [tmp_path / "in" / f"{i}.bin" for i in range(4)]
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        name.write_bytes(bytes([i]) * 11)
    read, calls = document_module.file_blocks, []

    def stop(path):
        calls.append(path)
        for number, part in enumerate(read(path)):
            if path == names[2] and calls.count(path) == 1 and number == 2:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(document_module, "file_blocks", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "in", tmp_path / "c", shard_bytes=30)
    assert (tmp_path / ".c.building" / JOURNAL).is_file()
    build(tmp_path / "in", tmp_path / "c", shard_bytes=30)
    build(tmp_path / "in", tmp_path / "whole", shard_bytes=30)
    assert content(tmp_path / "c") == content(tmp_path / "whole")


@pytest.mark.parametrize("stored", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path, stored):
    """Issue 9, case 4: `data inspect` took ten times a file's size, `data build` all of it."""
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(96 << 20)
    if stored:
        path = build(path, tmp_path / "corpus").path
    tracemalloc.start()
    try:
        totals = Inspection(sample_bytes=1 << 16)
        for document in open_source(path):
            totals.add(document)
        inspected = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        built = build(path, tmp_path / "c", shard_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert inspected < 24 << 20  # a block of 1 MiB is counted as int64
    assert totals.histogram[0] == built.bytes == 96 << 20
    assert totals.utf8_documents == 1 and list(totals.sizes) == [96 << 20]


def test_characters_across_blocks_are_text(block):
    block(3)
    text = "aé日本🙂" * 5
    for data, is_text in ((text.encode(), 1), (text.encode()[:-1], 0), (b"ab\xff" + b"c" * 9, 0)):
        totals = Inspection()
        totals.add(Document(data))
        assert totals.utf8_documents == is_text
        assert np.array_equal(totals.histogram, np.bincount(list(data), minlength=256))


def test_a_lazy_document_reads_again_what_it_is_asked_again():
    document = LazyDocument(lambda: iter([b"ab", b"c"]), {"path": "x"})
    for _ in range(2):
        assert (document.data, document.head()) == (b"abc", b"ab")
    changed = document.with_meta(group="g")
    assert changed.meta == {"path": "x", "group": "g"} and changed.data == b"abc"
    assert BLOCK == 1 << 20


def test_a_long_duplicate_leaves_no_trace(tmp_path, block):
    block(4)
    source = MemorySource([b"x" * 10, b"x" * 10, b"y" * 10, b"x" * 10])
    built = build(source, tmp_path / "c", shard_bytes=10)
    assert (built.documents, built.duplicates) == (2, 2)
    assert sorted(p.name for p in built.path.glob("*.bin")) == [
        "shard-00000.bin",
        "shard-00001.bin",
    ]
    assert Corpus.open(built.path).total_bytes == 20
