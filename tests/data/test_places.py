"""A path means the same documents to every command, however it is spelt and whatever it names."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner

from bytelm.cli.app import app
from bytelm.data import Corpus, Reading, open_source
from bytelm.data.corpus.build import build, build_split, is_heldout
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.inspect import inspect
from bytelm.data.sources import Limits, MemorySource
from bytelm.errors import DataError
from bytelm.evaluate.documents import read_documents
from bytelm.tokenizer.documents import documents_of
from bytelm.training.data import open_data
from tests.data.containers import ar_of, make_tree, tar_of, zip_of

LINES = b'{"text": "one"}\n{"text": "two"}\n'
FILES = {
    "plain.txt": b"plain",
    "empty.txt": b"",
    "packed.txt.gz": gzip.compress(b"packed"),
    "r.jsonl": LINES,
    "r2.jsonl.gz": gzip.compress(LINES.replace(b"one", b"three")),
    "a.zip": zip_of({"m": b"member", "t.tar": tar_of({"x": b"in tar"})}),
    "deep/er/.hidden": b"hidden",
    "deep/b.bin": bytes(range(256)),
}
# what is named -> how many documents
SPECS = {
    "plain.txt": 1,
    "empty.txt": 1,
    "packed.txt.gz": 1,
    "r.jsonl": 2,
    "r2.jsonl.gz": 2,
    "a.zip": 2,
    "deep": 3,  # the linked folder is one of them
    "": 13,
    "**": 12,  # not the hidden one
    "*.gz": 3,
    "deep/*/*": 1,
    "corpora/c": 4,
    "corpora/*": 4,
    "file:caf%E9": 1,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    make_tree(root / "in", FILES)
    Path(os.fsdecode(os.fsencode(root / "in") + b"/caf\xe9")).write_bytes(b"latin-1")
    make_tree(root / "out", {"1": b"linked"})
    (root / "in" / "deep" / "link").symlink_to(root / "out")
    build(MemorySource([b"w", b"x" * (3 << 20), b"", b"z"]), root / "in" / "corpora" / "c")
    return root / "in"


@pytest.mark.parametrize("spec", SPECS)
def test_training_evaluation_building_inspection_and_tokenizers_agree(
    tree, tmp_path, spec, monkeypatch
):
    """Issue 9, case 8: a run trained on the bytes of x.txt.gz and was measured on its text."""
    monkeypatch.chdir(tree)
    spec = spec or "."
    documents = read_documents([spec])
    assert len(documents) == SPECS[spec if spec != "." else ""]
    corpus = open_data([spec], reading=Reading())
    assert [corpus.document(i).tobytes() for i in range(len(corpus))] == documents
    assert list(documents_of([spec])) == documents
    assert [d.data for d in open_source(tree / spec if ":" not in spec else spec)] == documents
    report = inspect(open_source(spec))
    assert (report["documents"], report["bytes"]) == (len(documents), sum(map(len, documents)))
    built = build(spec, tmp_path / "built", deduplicate=False)
    stored = Corpus.open(built.path)
    assert [stored.document(i).tobytes() for i in range(len(stored))] == documents
    assert list(documents_of([built.path])) == documents


@pytest.mark.parametrize("spec", ["plain.txt", "packed.txt.gz", "r.jsonl", "a.zip"])
def test_raw_means_the_bytes_of_the_file_everywhere(tree, spec):
    data, reading = (tree / spec).read_bytes(), Reading(raw=True)
    assert [d.data for d in open_source(tree / spec, reading=reading)] == [data]
    assert Corpus.open(tree / spec, reading=reading).document(0).tobytes() == data
    assert read_documents([str(tree / spec)], reading=reading) == [data]


def test_a_corpus_that_is_built_again_keeps_what_is_known_of_its_documents(tree, tmp_path):
    first, second = tree / "corpora" / "c", tmp_path / "again"
    build(first, second)
    assert list(read_rows(first)) == list(read_rows(second))
    assert Corpus.open(first).fingerprint == Corpus.open(second).fingerprint


def test_what_is_too_large_for_memory_says_how(tree, monkeypatch):
    monkeypatch.setattr("bytelm.data.corpus.reader.LARGEST", 5)
    with pytest.raises(DataError, match="packed.txt.gz holds more than 5 bytes.*build a corpus"):
        Corpus.open(tree / "packed.txt.gz")
    assert Corpus.open(tree / "deep" / "b.bin").total_bytes == 256  # read where it is


def test_the_split_does_not_depend_on_how_a_path_is_spelt(tmp_path, monkeypatch):
    """Issue 9, case 53: other files were held out with an absolute path."""
    files = {f"d{i % 3}/{i}.txt": b"%d" % i for i in range(60)}
    files |= {"r.jsonl": LINES, "a.zip": FILES["a.zip"], "b.txt.gz": FILES["packed.txt.gz"]}
    make_tree(tmp_path / "docs", files)
    held = set()
    for number, (folder, spec) in enumerate(
        [
            (tmp_path, "docs"),
            (tmp_path, "./docs/"),
            (tmp_path, str(tmp_path / "docs")),
            (tmp_path, "docs/**"),
            (tmp_path / "docs" / "d0", ".."),
            (tmp_path / "docs", "."),
        ]
    ):
        monkeypatch.chdir(folder)
        out = tmp_path / f"out{number}"
        _, heldout = build_split(spec, out, heldout=0.3)
        corpus = Corpus.open(heldout.path)
        held.add(tuple(corpus.document(i).tobytes() for i in range(len(corpus))))
    assert len(held) == 1 and 5 < len(next(iter(held))) < 30
    monkeypatch.chdir(tmp_path)
    for reading in (Reading(), Reading(group_by_folder=True)):
        sides = [
            [is_heldout(d, share=0.5, seed=3) for d in open_source(spec, reading=reading)]
            for spec in ("docs", str(tmp_path / "docs"))
        ]
        assert sides[0] == sides[1]


class Pipe:
    """Bytes behind /dev/fd/N, as the shell's <(command) gives them."""

    def __init__(self, data: bytes):
        self._child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._data = data

    def __enter__(self) -> str:
        import threading

        assert self._child.stdout is not None
        self._feeder = threading.Thread(target=self._child.communicate, args=(self._data,))
        fd = os.dup(self._child.stdout.fileno())
        self._child.stdout.close()
        self._child.stdout = None
        self._feeder.start()
        self._fd = fd
        return f"/dev/fd/{fd}"

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)
        self._feeder.join()


@pytest.mark.parametrize("size", [0, 5, 1 << 20, (3 << 20) + 7])
def test_pipes_and_standard_input_are_one_document(size, tmp_path, monkeypatch):
    """Issue 9, case 12: `eval -`, `data build -` and <(command) were paths that do not exist."""
    data = os.urandom(size)
    with Pipe(data) as path:
        assert read_documents([path]) == [data]
    with Pipe(data) as path:
        assert build(path, tmp_path / "c").bytes == size
    with Pipe(data) as path:
        assert inspect(open_source(path))["bytes"] == size
    for command in (["build", "-", "--out", str(tmp_path / "d")], ["inspect", "-"]):
        done = CliRunner().invoke(app, ["data", *command, "--json"], input=data)
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert report.get("bytes", report.get("corpora", [{}])[0].get("bytes")) == size
    assert Corpus.open(tmp_path / "d").document(0).tobytes() == data
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_documents(["-"]) == [data]


@pytest.mark.parametrize("name", ["x.txt.gz", "x.txt.bz2", "x.txt.xz", "x.txt.zst"])
@pytest.mark.parametrize("size", [0, 9, (1 << 20) + 7])
def test_a_compressed_pipe_is_the_document_that_the_file_is(name, size, tmp_path, monkeypatch):
    """Its content decides, as it has no name; damage and limits are errors as for a file."""
    data = os.urandom(1 << 19) * (size >> 19) + bytes(size % (1 << 19))
    packed = {"gz": gzip, "bz2": bz2, "xz": lzma, "zst": zstandard}[name[6:]].compress(data)
    (tmp_path / name).write_bytes(packed)
    assert read_documents([str(tmp_path / name)]) == [data]
    with Pipe(packed) as path:
        assert read_documents([path]) == [data]
    with Pipe(packed) as path:
        assert build(path, tmp_path / "c").bytes == size
    with Pipe(packed) as path:
        assert read_documents([path], reading=Reading(raw=True)) == [packed]
    if not size:
        return
    with Pipe(packed[:-5]) as path, pytest.raises(DataError, match="cut short.*--skip-errors"):
        read_documents([path])
    with Pipe(packed[:-5]) as path:
        reading = Reading(skip_errors=True)
        assert read_documents([path], reading=reading) == []
        assert dict(reading.notes.counts) == {"damaged file": 1}
    limits = Limits(unpacked_bytes=size - 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    with pytest.raises(DataError, match="stdin .*--max-unpacked"):
        read_documents(["-"], reading=Reading(limits=limits))


def test_the_ratio_of_a_pipe_is_judged_by_what_was_read():
    bomb = gzip.compress(bytes(8 << 20))
    with Pipe(bomb) as path, pytest.raises(DataError, match="--max-ratio"):
        read_documents([path], reading=Reading(limits=Limits(floor_bytes=1 << 20)))
    with Pipe(bomb) as path:
        limits = Limits(floor_bytes=1 << 20, ratio=2000)
        assert read_documents([path], reading=Reading(limits=limits)) == [bytes(8 << 20)]


@pytest.mark.parametrize(
    "head", [b"", b"B", b"P", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x09" + bytes(99)]
)
def test_a_pipe_that_only_resembles_something_packed_is_as_it_stands(head):
    reading = Reading()
    with Pipe(head) as path:
        assert read_documents([path], reading=reading) == [head]
    assert not reading.notes.counts


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["zip", "tar", "a", "jsonl"])
def test_archives_and_records_in_a_pipe_are_told(name, packed):
    lines = b'{"text": "a"}\n{"text": "b"}\n'
    data = {"zip": zip_of({"a": b"x"}), "tar": tar_of({"a": b"x"}), "a": ar_of({"a": b"x"})}
    content = data.get(name, lines)
    reading = Reading()
    with Pipe(gzip.compress(content) if packed else content) as path:
        assert read_documents([path], reading=reading) == [content]
    assert reading.notes.report()["taken_whole"]["unopened pipe"]["count"] == 1
    with Pipe(content) as path, pytest.raises(DataError, match="--strict: unopened pipe"):
        read_documents([path], reading=Reading(strict=True))


def test_a_pipe_is_read_once_and_no_training_data():
    with Pipe(bytes(3 << 20)) as path:
        source = open_source(path)
        assert [len(d.data) for d in source] == [3 << 20]
        with pytest.raises(DataError, match="once only"):
            list(source)
        with pytest.raises(DataError, match="bytelm data build"):
            Corpus.open(path)
    with pytest.raises(DataError, match="bytelm data build - --out"):
        Corpus.open("-")


def test_a_document_from_a_pipe_never_ends_early_the_second_time():
    with Pipe(bytes(3 << 20)) as path:
        (document,) = open_source(path)
        assert len(document.head()) == 1 << 20 and len(document.data) == 3 << 20
        with pytest.raises(DataError, match="once only"):
            document.data  # noqa: B018


def test_a_corpus_of_any_name_goes_through_every_command(tree, tmp_path):
    """Issue 9, case 13: a name that is not UTF-8 was a traceback of pyarrow."""
    out = os.fsdecode(os.fsencode(tmp_path) + b"/c\xff")
    commands = [
        ["data", "build", str(tree / "deep"), "--out", out, "--json"],
        ["data", "inspect", out, "--json"],
        ["tokenizer", "train", out, "--vocab-size", "264", "--out", str(tmp_path / "t"), "--json"],
    ]
    for command in commands:
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert read_documents([out]) == read_documents([str(tree / "deep")])
