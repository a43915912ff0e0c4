"""Builds that are interrupted: never half a corpus, and resuming gives what was never stopped.

The oracle is always a build of the same sources into a fresh folder in one go.
"""

import errno
import gzip
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bytelm.cli.app import run as command_line
from bytelm.data import Corpus
from bytelm.data.corpus import build as build_module
from bytelm.data.corpus.build import Builder, build, build_split
from bytelm.data.corpus.build_folder import BuildFolder
from bytelm.data.corpus.journal import JOURNAL
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.corpus.shards import ShardWriter
from bytelm.data.sources import FileSource, MemorySource
from bytelm.errors import DataError
from tests.data.containers import tar_of, zip_of


@pytest.fixture
def mark_always(monkeypatch):
    """Mark after every document, rather than every two seconds; and not wait for the disk."""
    monkeypatch.setattr(build_module, "MARK_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def make_sources(folder: Path, *, files: int = 12, seed: int = 1) -> Path:
    """Plain files, a record file, archives; duplicates and an empty document among them."""
    random = Random(seed)
    for i in range(files):
        path = folder / f"dir{i % 3}" / f"{i:04}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(i * 7 % 50))
    lines = [json.dumps({"text": f"record {n // 2}"}) for n in range(12)]
    (folder / "dir1" / "r.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    members = {f"m{n}": b"member %d" % n for n in range(5)}
    (folder / "dir2" / "a.zip").write_bytes(zip_of({**members, "t.tar": tar_of({"x": b"in tar"})}))
    return folder


def content(corpus: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(corpus)): p.read_bytes() for p in corpus.rglob("*") if p.is_file()}


class Stop(Exception):
    """What interrupts a build in these tests."""


def stop_after(count: int):
    """A progress report that interrupts."""

    def progress(documents: int, size: int) -> None:
        if documents >= count:
            raise Stop

    return progress


def test_a_failed_build_of_nothing_in_particular_leaves_nothing_behind(tmp_path):
    def documents():
        yield b"one"
        raise OSError("the disk vanished")

    with pytest.raises(OSError, match="vanished"):
        build(MemorySource(documents()), tmp_path / "out" / "c")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("stops", [[1], [9], [3, 4, 11, 20], [23]])
def test_a_build_resumes_after_any_number_of_stops(tmp_path, mark_always, stops):
    sources, said = make_sources(tmp_path / "in"), []
    for stop in stops:
        with pytest.raises(Stop):
            build(sources, tmp_path / "c", shard_bytes=64, progress=stop_after(stop))
        assert not (tmp_path / "c").exists()
    built = build(sources, tmp_path / "c", shard_bytes=64, notify=said.append)
    # The mark comes after the report of progress: the document that stopped it is read again.
    if stops != [1]:
        assert said == [f"resuming the build of {tmp_path}/c after {stops[-1] - 1} documents"]
    whole = build(sources, tmp_path / "whole", shard_bytes=64)
    assert whole == replace(built, path=whole.path) and whole.duplicates > 0
    assert content(built.path) == content(whole.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "in", "whole"]


def test_a_split_resumes_too(tmp_path, mark_always):
    sources = make_sources(tmp_path / "in", files=40)
    for stop in (5, 17):
        with pytest.raises(Stop):
            build_split(sources, tmp_path / "c", heldout=0.4, progress=stop_after(stop))
    built = build_split(sources, tmp_path / "c", heldout=0.4)
    whole = build_split(sources, tmp_path / "whole", heldout=0.4)
    assert [b.documents for b in built] == [b.documents for b in whole]
    assert content(tmp_path / "c") == content(tmp_path / "whole")
    assert Corpus.open(tmp_path / "c" / "heldout").total_bytes == built[1].bytes


def test_what_was_done_is_not_read_again(tmp_path, mark_always, monkeypatch):
    sources = make_sources(tmp_path / "in", files=30)
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", deduplicate=False, progress=stop_after(20))
    read, iterate = [], FileSource.__iter__

    def counted(self):
        read.append(self.path)
        return iterate(self)

    monkeypatch.setattr(FileSource, "__iter__", counted)
    build(sources, tmp_path / "c", deduplicate=False)
    # 19 documents were marked: 10 of dir0 and 9 of dir1, whose last file is looked at again.
    assert len(read) == 30 - 19 + 1
    files = sorted(p for p in (tmp_path / "in").rglob("*.bin"))
    assert read == files[18:]


def test_the_journal_may_be_cut_anywhere(tmp_path, mark_always):
    """As by a kill inside a write, with shards that were written further than it says."""
    sources = make_sources(tmp_path / "in", files=4)
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", shard_bytes=32, progress=stop_after(9))
    left = tmp_path / ".c.building"
    shutil.move(left, tmp_path / "left")
    build(sources, tmp_path / "whole", shard_bytes=32)
    expected, journal = content(tmp_path / "whole"), (tmp_path / "left" / JOURNAL).read_bytes()
    for number, cut in enumerate([*range(0, len(journal), 61), len(journal)]):
        junk = (b"", b"\0\0\0", b"\0\n")[number % 3]
        shutil.copytree(tmp_path / "left", left)
        (left / JOURNAL).write_bytes(journal[:cut] + junk)
        build(sources, tmp_path / "c", shard_bytes=32, overwrite=True)
        assert content(tmp_path / "c") == expected, (cut, junk)


def test_a_changed_source_takes_back_only_what_came_after_it(tmp_path, mark_always):
    sources, said = make_sources(tmp_path / "in"), []
    files = sorted((tmp_path / "in").rglob("*.bin"))

    def stop_then(change) -> dict[str, bytes]:
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        with pytest.raises(Stop):
            build(sources, tmp_path / "c", deduplicate=False, progress=stop_after(8))
        change()
        build(sources, tmp_path / "c", deduplicate=False, notify=said.append)
        return content(tmp_path / "c")

    def same_as_whole(found: dict[str, bytes]) -> bool:
        shutil.rmtree(tmp_path / "whole", ignore_errors=True)
        build(sources, tmp_path / "whole", deduplicate=False)
        return found == content(tmp_path / "whole")

    def grows() -> None:
        files[3].write_bytes(b"longer than it was")

    assert same_as_whole(stop_then(grows))  # it is number 3: the three before it stand
    assert same_as_whole(stop_then(lambda: files[10].write_bytes(b"not read yet")))
    assert same_as_whole(stop_then(files[2].unlink))
    assert same_as_whole(stop_then(lambda: (tmp_path / "in" / "0").write_bytes(b"before all")))
    kept = [3, 7, 2, None]
    for message, documents in zip(said, kept, strict=True):
        expected = "starting from scratch" if documents is None else f"after {documents} documents"
        assert message.endswith(expected)


def test_a_file_of_the_same_length_and_another_time_has_changed(tmp_path, mark_always):
    sources = make_sources(tmp_path / "in")
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", progress=stop_after(8))
    second = sorted((tmp_path / "in").rglob("*.bin"))[1]
    second.write_bytes(second.read_bytes()[::-1])
    build(sources, tmp_path / "c")
    build(sources, tmp_path / "whole")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_a_file_that_vanishes_while_building_is_named_and_the_rest_goes_on(
    tmp_path, mark_always, capfd
):
    sources = make_sources(tmp_path / "in")
    doomed = sorted((tmp_path / "in").rglob("*.bin"))[6]

    def progress(documents: int, size: int) -> None:
        doomed.unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError, match=doomed.name):
        build(sources, tmp_path / "c", progress=progress)
    with pytest.raises(SystemExit) as exit:
        command_line(["data", "build", str(sources), "--out", str(tmp_path / "c")])
    assert not exit.value.code and "resuming the build" in capfd.readouterr().err
    build(sources, tmp_path / "whole")
    documents = [list(read_rows(tmp_path / name)) for name in ("c", "whole")]
    assert documents[0] == documents[1]


def test_a_full_disk_is_named_and_the_build_goes_on_when_there_is_room(
    tmp_path, mark_always, capfd, monkeypatch
):
    sources = make_sources(tmp_path / "in")
    command = ["data", "build", str(sources), "--out", str(tmp_path / "c")]
    write, calls = ShardWriter.write, iter(range(99))

    def full(self, data: bytes) -> None:
        if next(calls) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(ShardWriter, "write", full)
    for status, message in ((2, "No space left"), (None, "resuming the build")):
        with pytest.raises(SystemExit) as exit:
            command_line(command)
        assert (exit.value.code or None) == status and message in capfd.readouterr().err
    build(sources, tmp_path / "whole")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_other_settings_start_from_scratch_and_say_so(tmp_path, mark_always):
    sources, said = make_sources(tmp_path / "in"), []
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", progress=stop_after(8), notify=said.append)
    assert said[0].startswith("the build of") and "the same command resumes" in said[0]
    build(sources, tmp_path / "c", shard_bytes=50, notify=said.append)
    assert said[1].endswith("starting from scratch")
    build(sources, tmp_path / "whole", shard_bytes=50)
    assert content(tmp_path / "c") == content(tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: os.truncate(p, 3)])
def test_a_shard_that_lost_bytes_starts_from_scratch(tmp_path, mark_always, damage):
    sources, said = make_sources(tmp_path / "in"), []
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", shard_bytes=64, progress=stop_after(12))
    damage(tmp_path / ".c.building" / "corpus" / "shard-00001.bin")
    build(sources, tmp_path / "c", shard_bytes=64, notify=said.append)
    assert said[0].endswith("starting from scratch")
    build(sources, tmp_path / "whole", shard_bytes=64)
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_a_source_of_which_nothing_is_known_is_read_again(tmp_path, mark_always):
    sources, said = [make_sources(tmp_path / "in"), MemorySource([b"at", b"hand", b"!"])], []
    known = build(sources[0], tmp_path / "known").documents
    with pytest.raises(Stop):
        build(sources, tmp_path / "c", progress=stop_after(known + 2))
    built = build(sources, tmp_path / "c", notify=said.append)
    assert said[0].endswith(f"after {known} documents") and built.documents == known + 3
    build(sources, tmp_path / "whole")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_file_names_need_not_be_utf8(tmp_path):
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/caf\xe9")).write_bytes(b"x")
    build(tmp_path / "in", tmp_path / "c")
    (row,) = read_rows(tmp_path / "c")
    assert row["source"] == f"{tmp_path}/in/caf\\udce9" and row["group"] == "caf\\udce9"


def kill_a_build(path: Path, *, when: str, overwrite: bool = False) -> None:
    """Build in a child process that is killed while it adds documents, or puts them in place."""
    child = os.fork()
    if child == 0:
        if when == "placing":
            os.replace = killed_at_call(2, os.replace)
        else:
            Builder._add = killed_at_call(3, Builder._add)
        build(MemorySource([b"a" * 99, b"b", b"c"]), path, shard_bytes=64, overwrite=overwrite)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def killed_at_call(number: int, function):
    calls = iter(range(1, number + 1))

    def counted(*args):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return counted


def build_some(path: Path) -> Path:
    return build(MemorySource([b"first", b"second" * 50]), path, shard_bytes=64).path


def test_a_killed_build_leaves_nothing_that_the_next_one_minds(tmp_path):
    path = tmp_path / "c"
    kill_a_build(path, when="adding")
    assert not path.exists() and list(tmp_path.iterdir())  # it did leave its folder
    build_some(path)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert content(path) == content(build_some(tmp_path / "d"))


def test_a_build_killed_while_replacing_a_corpus_loses_neither(tmp_path):
    path = build_some(tmp_path / "c")
    kill_a_build(path, when="placing", overwrite=True)
    assert not path.exists()  # the old one is aside, the new one not yet here
    with pytest.raises(DataError, match="exists"):
        build_some(path)
    assert Corpus.open(path).document(0).tobytes() == b"first"
    build(MemorySource([b"new"]), path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert Corpus.open(path).document(0).tobytes() == b"new"


def test_two_builds_of_one_folder_do_not_meet(tmp_path):
    with BuildFolder(tmp_path / "c", settings={}, overwrite=False):
        build(MemorySource([b"y"]), tmp_path / "d")
        with pytest.raises(DataError, match="another process is building"):
            build(MemorySource([b"y"]), tmp_path / "c")
    build(MemorySource([b"y"]), tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "d"]


def test_a_split_is_replaced_only_as_a_whole(tmp_path):
    sources = make_sources(tmp_path / "in", files=40)
    build_split(sources, tmp_path / "c", heldout=0.4)
    with pytest.raises(DataError, match="exists"):
        build_split(sources, tmp_path / "c", heldout=0.4)
    build_split(sources, tmp_path / "c", heldout=0.2, overwrite=True)
    build_split(sources, tmp_path / "whole", heldout=0.2)
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_the_command_killed_at_random_times_ends_as_if_it_never_was(tmp_path, mark_always):
    """SIGKILL again and again after a random amount of progress; the command runs in a fork."""
    random, path = Random(5), tmp_path / "c"
    sources = [make_sources(tmp_path / "in" / str(i), files=120, seed=i) for i in range(3)]
    command = ["data", "build", *map(str, sources), "--out"]
    journal = tmp_path / ".c.building" / JOURNAL

    def written() -> int:
        try:
            return journal.stat().st_size
        except FileNotFoundError:  # not begun, or just ended
            return 0

    killed = 0
    while killed < 6 and not path.exists():
        goal, deadline = written() + random.randrange(4000), time.monotonic() + 120
        child = os.fork()
        if child == 0:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
                try:
                    command_line([*command, str(path)])
                finally:
                    os._exit(1)
        while written() < goal:
            assert time.monotonic() < deadline, "the build makes no progress"
            if path.exists():
                break
        time.sleep(random.uniform(0, 0.003))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert killed >= 3
    for out in (path, tmp_path / "whole"):
        if out.exists():
            continue
        with pytest.raises(SystemExit) as exit:
            command_line([*command, str(out)])
        assert not exit.value.code
    assert content(path) == content(tmp_path / "whole")
