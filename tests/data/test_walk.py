"""The walker: every file once, links or not, and nothing passed over without a word."""

import os
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.data import Corpus, Reading, open_source
from bytelm.data.corpus.build import build
from bytelm.data.sources.walk import find_files, match_files
from bytelm.errors import DataError
from tests.data.containers import make_tree

NAMES = st.sampled_from(["a", "b", ".h", "x.txt", "y.md"])
PARTS = st.sampled_from(["*", "**", "a", "?", "*.txt", "[ab]", ".*"])
ROADS = ("", "**", "**/*")  # a folder, and patterns that mean all of it


def read(spec, reading: Reading | None = None) -> list[bytes]:
    return [document.data for document in open_source(spec, reading=reading)]


def test_a_linked_folder_is_read_on_every_road(tmp_path):
    """Issue 9, case 7: the folder skipped it silently, 'folder/**' followed it."""
    make_tree(tmp_path, {"in/a/1.txt": b"one", "out/2.txt": b"two"})
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    for road in ROADS:
        assert read(str(tmp_path / "in" / road)) == [b"one", b"two"]
        assert len(Corpus.open(str(tmp_path / "in" / road))) == 2
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "link").symlink_to(tmp_path / "out")
    assert read(tmp_path / "only") == [b"two"]


@pytest.mark.parametrize("links", [{"a/up": ".."}, {"a/up": "..", "b/up": "../.."}])
def test_links_in_circles_end_and_are_told(tmp_path, links):
    """41 copies of one file with one link, and no end with two."""
    make_tree(tmp_path / "in", {"a/1.txt": b"one", "b/2.txt": b"two"})
    for name, target in links.items():
        (tmp_path / "in" / name).symlink_to(target)
    make_tree(tmp_path, {"beside.txt": b"not below the folder"})
    for road in ROADS:
        reading = Reading()
        spec = str(tmp_path / "in" / road)
        assert read(spec, reading) == [b"one", b"two"]
        assert reading.notes.counts == {"link": len(links)}
        assert len(Corpus.open(spec)) == 2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_tree_with_any_links_gives_each_file_once(seed, tmp_path_factory):
    """The oracle: the real files of every folder that can be reached, by their inodes."""
    random, root = Random(seed), tmp_path_factory.mktemp("tree")
    folders = [root / "in", root / "out"]
    for folder in folders:
        folder.mkdir()
    for i in range(random.randrange(1, 9)):
        folders.append(random.choice(folders) / f"d{i}")
        folders[-1].mkdir()
    for i in range(random.randrange(6)):
        (random.choice(folders) / f"f{i}.txt").write_text(str(i))
    for i in range(random.randrange(6)):
        (random.choice(folders) / f"link{i}").symlink_to(random.choice(folders))
    reached, pending = set(), [root / "in"]
    while pending:
        folder = pending.pop().resolve()
        if folder not in reached:
            reached.add(folder)
            pending += [p for p in folder.iterdir() if p.is_dir()]
    expected = sorted(p.read_text() for f in reached for p in f.iterdir() if p.is_file())
    for found in (find_files(root / "in"), match_files(root / "in" / "**" / "*.txt")):
        assert sorted(path.read_text() for path in found.files) == expected
        assert found.files == sorted(found.files)


@settings(max_examples=60, deadline=None)
@given(
    names=st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join)),
    parts=st.lists(PARTS, min_size=1, max_size=4),
)
def test_patterns_mean_what_pythons_glob_means(names, parts, tmp_path_factory):
    import glob

    root = tmp_path_factory.mktemp("tree")
    for name in sorted(names):
        if not any(p.is_file() for p in (root / name).parents):
            path = root / name
            if not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    pattern = root.joinpath(*parts, "*")
    expected = {Path(p) for p in glob.glob(str(pattern), recursive=True) if os.path.isfile(p)}
    assert set(match_files(pattern).files) == expected


def test_what_is_no_file_is_counted_by_kind(tmp_path):
    make_tree(tmp_path, {"in/1.txt": b"one", "in/c/corpus.json": b"{}", "in/c/offsets.npy": b""})
    (tmp_path / "in" / "broken").symlink_to("nowhere")
    (tmp_path / "in" / "round").symlink_to("round")
    os.mkfifo(tmp_path / "in" / "pipe")
    reading = Reading()
    assert read(tmp_path / "in", reading) == [b"one"]
    assert reading.notes.counts == {"link": 2, "device": 1, "nested corpus": 1}
    with pytest.raises(DataError, match="broken"):
        read(tmp_path / "in", Reading(strict=True))


def as_nobody(action) -> bytes:
    """What `action` returns in a process that may not read everything."""
    source, target = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            os.write(target, action())
            status = 0
        finally:
            os._exit(status)
    os.close(target)
    with os.fdopen(source, "rb") as stream:
        told = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return told


def test_a_folder_that_cannot_be_entered_is_told():
    """Issue 9, case 50: one of two documents and status 0."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_tree(root, {"in/a/1.txt": b"one", "in/b/2.txt": b"two"})
        for folder in (root, root / "in", root / "in" / "a"):
            folder.chmod(0o755)
        (root / "in" / "b").chmod(0)

        def action() -> bytes:
            reading = Reading()
            found = read(root / "in", reading)
            return repr((found, reading.notes.lines())).encode()

        told = as_nobody(action).decode()
        (root / "in" / "b").chmod(0o755)
    assert told.startswith("([b'one'], ['skipped 1 unreadable folder: ")
    assert told.endswith("in/b: Permission denied'])")


def test_a_file_that_may_not_be_read_is_an_error_or_left_out_and_counted():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_tree(root, {"in/1.txt": b"one", "in/2.txt": b"two", "in/3.txt.gz": b"three"})
        for path in (root, root / "in"):
            path.chmod(0o755)
        for closed in ("2.txt", "3.txt.gz"):
            (root / "in" / closed).chmod(0)

        def action() -> bytes:
            reading = Reading(skip_errors=True)
            told = [read(root / "in", reading), dict(reading.notes.counts)]
            for reader in (read, lambda path: Corpus.open(path).fingerprint):
                try:
                    reader(root / "in")
                except DataError as error:
                    told.append(str(error).removeprefix(f"{root}/in/"))
            return repr(told).encode()

        told = as_nobody(action).decode()
    assert told == repr(
        [
            [b"one"],
            {"unreadable file": 2},
            "2.txt: Permission denied. --skip-errors leaves it out",
            "2.txt cannot be read: Permission denied",
        ]
    )


def test_the_corpus_inside_its_source_is_never_swallowed(tmp_path):
    """Issue 9, case 54: `--out` inside the source, also raw, also after an interruption."""
    make_tree(tmp_path, {"1.txt": b"one", "2.txt": b"two"})

    def stop(documents: int, size: int) -> None:
        raise KeyboardInterrupt

    for raw in (False, True):
        out = tmp_path / f"corpus{raw}"
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, out, reading=Reading(raw=raw), progress=stop)
        (tmp_path / f".{out.name}.building").mkdir(exist_ok=True)
        (tmp_path / f".{out.name}.building" / "journal.jsonl").write_bytes(b"{}")
        assert build(tmp_path, out, reading=Reading(raw=raw)).documents == 2
        assert build(tmp_path, out, reading=Reading(raw=raw), overwrite=True).documents == 2
