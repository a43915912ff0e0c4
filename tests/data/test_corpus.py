"""Corpus: what is built is what is read, twice the same, and damage is noticed."""

import json
import os
import pickle
import shutil
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import Corpus, Document, Windows
from bytelm.data.corpus.build import build, build_split, is_heldout
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.sources import MemorySource
from bytelm.errors import DataError

DOCUMENTS = st.lists(st.binary(max_size=30), min_size=1, max_size=10)


@given(documents=DOCUMENTS, shard_bytes=st.integers(1, 60), data=st.data())
def test_a_built_corpus_holds_the_documents_in_order(documents, shard_bytes, data):
    path = Path(tempfile.mkdtemp()) / "corpus"
    build(MemorySource(documents), path, deduplicate=False, shard_bytes=shard_bytes)
    corpus = Corpus.open(path)
    assert [corpus.document(i).tobytes() for i in range(len(corpus))] == documents
    joined = b"".join(documents)
    assert corpus.total_bytes == len(joined)
    start = data.draw(st.integers(0, len(joined)))
    stop = data.draw(st.integers(start, len(joined)))
    assert corpus.read(start, stop).tobytes() == joined[start:stop]
    assert corpus.offsets.dtype == np.int64 and corpus.offsets[-1] == len(joined)


def build_some(path: Path) -> Path:
    build(MemorySource([b"first", b"", b"second" * 50, b"x"]), path, shard_bytes=64)
    return path


def test_building_twice_gives_the_same_bytes(tmp_path):
    first, second = build_some(tmp_path / "a"), build_some(tmp_path / "b")
    names = sorted(p.name for p in first.iterdir())
    assert names == ["corpus.json", "documents.parquet", "offsets.npy"] + [
        f"shard-0000{i}.bin" for i in range(2)
    ]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_duplicates_are_left_out_and_counted(tmp_path):
    built = build(MemorySource([b"a", b"b", b"a", b"", b""]), tmp_path / "c")
    assert (built.documents, built.duplicates) == (3, 2)
    assert build(MemorySource([b"a", b"a"]), tmp_path / "d", deduplicate=False).documents == 2


def test_metadata_tells_where_each_document_came_from(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"hello")
    Corpus.build(tmp_path / "in", tmp_path / "out")
    (row,) = read_rows(tmp_path / "out")
    assert row["source"].endswith("a.txt") and row["length"] == 5
    assert row["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_plain_files_open_as_they_stand(tmp_path):
    (tmp_path / "a.bin").write_bytes(b'{"text": 1}')
    (tmp_path / "b.bin").write_bytes(b"")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    corpus = Corpus.open([tmp_path / "a.bin", tmp_path / "b.bin", tmp_path / "c.bin"])
    assert [corpus.document(i).tobytes() for i in range(3)] == [b'{"text": 1}', b"", b"\xff"]
    assert len(Corpus.open(str(tmp_path / "*.bin"))) == len(Corpus.open(tmp_path)) == 3
    assert corpus.document(-1).tobytes() == b"\xff"


def test_corpora_join_in_order(tmp_path):
    built = Corpus.open(build_some(tmp_path / "built"))
    (tmp_path / "plain").write_bytes(b"plain")
    both = Corpus.concat([Corpus.open(tmp_path / "plain"), built])
    assert len(both) == 5 and both.document(0).tobytes() == b"plain"
    assert both.document(1).tobytes() == b"first"
    assert both.total_bytes == built.total_bytes + 5
    opened = Corpus.open([tmp_path / "plain", tmp_path / "built"])
    assert opened.fingerprint == both.fingerprint != built.fingerprint


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    marks = [Corpus.open(tmp_path / name).fingerprint for name in "abc"]
    assert marks[0] == marks[1] != marks[2]
    split = Corpus.open([tmp_path / "a", tmp_path / "c"]).fingerprint
    (tmp_path / "joined").write_bytes(b"onetwo")
    assert split != Corpus.open(tmp_path / "joined").fingerprint


def test_a_huge_sparse_file_opens_at_once(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.seek(5 << 30)
        stream.write(b"end")
    corpus = Corpus.open(path)
    assert corpus.total_bytes == (5 << 30) + 3
    assert corpus.read((5 << 30) - 1, (5 << 30) + 3).tobytes() == b"\0end"
    assert len(corpus.fingerprint) == 64


@pytest.mark.parametrize("name", ["shard-00000.bin", "offsets.npy", "documents.parquet"])
def test_one_flipped_bit_is_noticed(tmp_path, name):
    path = build_some(tmp_path / "c")
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is corrupted"):
        Corpus.open(path)


@pytest.mark.parametrize("name", ["shard-00001.bin", "offsets.npy"])
def test_truncated_and_missing_files_are_noticed(tmp_path, name):
    path = build_some(tmp_path / "c")
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-1])
    with pytest.raises(DataError, match=f"bytes instead of {len(content)}"):
        Corpus.open(path, verify=False)
    (path / name).unlink()
    with pytest.raises(DataError, match="is missing"):
        Corpus.open(path)


def test_a_broken_description_is_noticed(tmp_path):
    path = build_some(tmp_path / "c")
    stored = json.loads((path / "corpus.json").read_text())
    for text, message in (
        ("{", "of a corpus description"),
        (json.dumps({**stored, "format": 99}), "format 99"),
        (json.dumps({**stored, "documents": 3}), "is damaged"),
    ):
        (path / "corpus.json").write_text(text)
        with pytest.raises(DataError, match=message):
            Corpus.open(path)


def test_a_corpus_on_a_read_only_disk_is_used_as_any_other():
    """By a user who may write nowhere in it, whoever runs the tests."""
    folder = Path(tempfile.mkdtemp())  # not below pytest's own, which only its user may enter
    path = build_some(folder / "c")
    for entry in (*path.iterdir(), path, folder):
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            corpus = Corpus.open(path)
            windows = Windows(corpus, length=8)
            assert not os.access(path, os.W_OK) and corpus.document(0).tobytes() == b"first"
            assert windows.batch(range(windows.count), epoch=0).raw_bytes == corpus.total_bytes
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for entry in (folder, path):
        entry.chmod(0o755)
    shutil.rmtree(folder)


def test_a_file_that_vanishes_after_opening_is_named_by_the_next_worker(tmp_path):
    """The map of this process stays good; a process that opens it again is told."""
    path = build_some(tmp_path / "c")
    corpus = Corpus.open(path)
    sent = pickle.dumps(corpus)
    (path / "shard-00001.bin").unlink()
    assert corpus.document(0).tobytes() == b"first"
    with pytest.raises(DataError, match="shard-00001.bin is missing"):
        pickle.loads(sent)
    (tmp_path / "plain").write_bytes(b"x")
    sent = pickle.dumps(Corpus.open(tmp_path / "plain"))
    (tmp_path / "plain").unlink()
    with pytest.raises(DataError, match="plain does not exist"):
        pickle.loads(sent)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="sources are empty"):
        Corpus.build([], tmp_path / "c")
    with pytest.raises(DataError, match="corpus is empty"):
        Corpus.open([])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no file to read in the folder"):
        Corpus.open(tmp_path / "folder")
    (tmp_path / "prose.txt").write_bytes(b"x")
    with pytest.raises(DataError, match="did you mean 'prose.txt'"):
        Corpus.open(tmp_path / "prise.txt")
    with pytest.raises(DataError, match="no file matches"):
        Corpus.open(str(tmp_path / "*.parquet"))


def test_a_split_keeps_groups_whole_and_never_moves_them(tmp_path):
    documents = [
        Document(f"{group} {i}".encode(), {"group": group})
        for group in map(str, range(60))
        for i in (0, 1)
    ]
    share = {d.meta["group"] for d in documents if is_heldout(d, share=0.25, seed=0)}
    assert 5 < len(share) < 28
    assert share != {d.meta["group"] for d in documents if is_heldout(d, share=0.25, seed=1)}

    class Fixed(MemorySource):
        def __iter__(self):
            return iter(documents)

    train, held = build_split(Fixed([]), tmp_path / "c", heldout=0.25)
    groups = [{row["group"] for row in read_rows(part.path)} for part in (train, held)]
    assert groups[1] == share and not groups[0] & groups[1]
    assert train.documents + held.documents == 120


def test_a_split_that_holds_out_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="too few groups"):
        build_split(MemorySource([b"one"]), tmp_path / "c", heldout=0.5)
    assert list(tmp_path.iterdir()) == []


def test_out_of_range_reads_are_refused(tmp_path):
    corpus = Corpus.open(build_some(tmp_path / "c"))
    for start, stop in ((-1, 2), (3, 2), (0, corpus.total_bytes + 1)):
        with pytest.raises(IndexError):
            corpus.read(start, stop)
    with pytest.raises(IndexError):
        corpus.document(len(corpus))


def test_a_corpus_is_sent_to_workers_by_its_paths(tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(1 << 20))
    corpus = Corpus.open(tmp_path / "big")
    sent = pickle.dumps(corpus)
    assert len(sent) < 1000
    assert pickle.loads(sent).fingerprint == corpus.fingerprint
