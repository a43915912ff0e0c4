"""Files read in place: few descriptors, and an error with a name when one changes underneath."""

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import Corpus, Windows
from bytelm.data.corpus.build import build
from bytelm.data.corpus.file_bytes import OPEN_FILES, FileBytes, _opened
from bytelm.data.sources import MemorySource
from bytelm.errors import DataError


@given(data=st.binary(max_size=60), start=st.integers(-70, 70), stop=st.integers(-70, 70))
def test_slices_are_those_of_the_bytes(data, start, stop, tmp_path_factory):
    path = tmp_path_factory.mktemp("f") / "a"
    path.write_bytes(data)
    assert FileBytes.open(path)[start:stop].tobytes() == data[start:stop]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors by /proc")
def test_many_files_take_few_descriptors(tmp_path):
    """Issue 9, case 3: one memory map, hence one descriptor, per file."""
    for i in range(2_000):
        folder = tmp_path / f"d{i % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.txt").write_bytes(b"%d" % i)
    before, limits = open_descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + OPEN_FILES + 40, limits[1]))
        corpus = Corpus.open(f"{tmp_path}/*/*.txt")
        windows = Windows(corpus, length=64, policy="pack")
        read = windows.batch(range(windows.count), epoch=0).raw_bytes
        assert read == corpus.total_bytes and len(corpus) == 2_000
        assert len(corpus.fingerprint) == 64
        assert open_descriptors() <= before + OPEN_FILES
        found = {corpus.document(i).tobytes() for i in range(len(corpus))}
        assert found == {b"%d" % i for i in range(2_000)}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def plain(folder: Path) -> tuple[Path, Path]:
    (folder / "a.txt").write_bytes(bytes(100_000))
    return folder / "a.txt", folder / "a.txt"


def built(folder: Path) -> tuple[Path, Path]:
    build(MemorySource([bytes(100_000)]), folder / "c")
    return folder / "c", folder / "c" / "shard-00000.bin"


@pytest.mark.parametrize("make", [plain, built])
@pytest.mark.parametrize("size", [0, 50_000, 99_999])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, make, size):
    """Issue 9, case 58: a truncated map was a SIGBUS without a message."""
    path, file = make(tmp_path)
    corpus = Corpus.open(path)
    windows = Windows(corpus, length=512, shuffle=False)
    windows.batch([0], epoch=0)
    os.truncate(file, size)
    with pytest.raises(DataError, match=f"{file.name} has changed.*100,000 bytes and has {size:,}"):
        windows.batch([windows.count - 1], epoch=0)
    with pytest.raises(DataError, match="has changed|bytes instead of"):
        pickle.loads(pickle.dumps(corpus))


def test_a_file_that_is_replaced_is_noticed_when_it_is_opened_again(tmp_path):
    path, _ = plain(tmp_path)
    corpus = Corpus.open(path)
    assert corpus.read(0, 1).tobytes() == b"\0"
    (tmp_path / "new").write_bytes(b"x" * 100_000)
    os.utime(tmp_path / "new", ns=(1, 1))
    os.replace(tmp_path / "new", path)
    assert corpus.read(0, 1).tobytes() == b"\0"  # as long as the old one is open
    _opened.cache_clear()
    with pytest.raises(DataError, match="a.txt has changed"):
        corpus.read(0, 1)
    path.unlink()
    with pytest.raises(DataError, match="a.txt has changed.*No such file"):
        corpus.read(0, 1)


def test_training_on_a_truncated_file_ends_with_a_sentence(tmp_path):
    """The whole command, in a process of its own: status 2 and the file's name."""
    program = (
        "import os, sys\n"
        "from bytelm.cli.app import run\n"
        "import bytelm.training.loop as loop\n"
        "step = loop.Trainer._step\n"
        "def cut(self, batch, done):\n"
        "    step(self, batch, done)\n"
        "    os.truncate(sys.argv[1], 4096)\n"
        "loop.Trainer._step = cut\n"
        "run(['train', 'transformer-tiny', 'data.train=[\"' + sys.argv[1] + '\"]',\n"
        "     'data.heldout=[]', 'train.steps=50', 'train.dtype=float32', 'model.layers=1',\n"
        "     'train.batch_bytes=1024', 'train.context_bytes=256',\n"
        "     '--run', sys.argv[1] + '.run'])\n"
    )
    path = tmp_path / "a.txt"
    path.write_bytes(os.urandom(4 << 20))
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "a.txt has changed since it was opened" in done.stderr
    assert "Traceback" not in done.stderr
