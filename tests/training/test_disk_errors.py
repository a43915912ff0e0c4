"""A full or forbidden disk, for real: whatever a library raises there becomes our message."""

import errno
import os
import resource
import shutil
import signal
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from bytelm.errors import CheckpointError, DiskError
from bytelm.files import disk_errors, new_folder, system_error, write_bytes, write_file
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe

MIB = 1 << 20


@pytest.fixture
def full_disk(tmp_path):
    """A file system with 256 KiB of room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def small_files():
    """No file may grow beyond 64 KiB: needs no right to mount, and gives EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def safetensors_file(path):
    save_file({"a": torch.zeros(MIB)}, path)


def distributed_checkpoint(path):
    import torch.distributed.checkpoint as dcp

    dcp.save({"a": torch.zeros(MIB)}, checkpoint_id=path, no_dist=True)


def numpy_file(path):
    import numpy as np

    with open(path, "wb") as file:
        np.save(file, np.zeros(MIB))


def parquet_file(path):
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": np.random.default_rng(0).random(MIB)}), path)


def plain_file(path):
    path.write_bytes(bytes(MIB))


WRITERS = [safetensors_file, distributed_checkpoint, numpy_file, parquet_file, plain_file]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("write", WRITERS)
def test_every_writer_we_use_ends_in_our_message_on_a_full_disk(full_disk, write):
    if write is distributed_checkpoint:
        with pytest.raises(DiskError, match="No space left on device.*--resume"):
            with new_folder(full_disk / "out") as folder:
                write(folder)
    else:
        with pytest.raises(DiskError, match="No space left on device.*--resume"):
            write_file(full_disk / "out", write)
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("write", [safetensors_file, numpy_file, plain_file])
def test_and_where_a_file_may_not_grow(tmp_path, small_files, write):
    with pytest.raises(DiskError, match="File too large|No space left"):
        write_file(tmp_path / "out", write)
    assert list(tmp_path.iterdir()) == []


def test_training_on_a_full_disk_keeps_its_last_checkpoint_and_resumes(full_disk, tmp_path):
    recipe = tiny_recipe(tmp_path, "train.keep_last=8")
    with pytest.raises(
        DiskError, match="cannot write .*: No space left on device.*train.keep_last"
    ):
        train(recipe, run_dir=full_disk / "run")
    assert not list((full_disk / "run").rglob(".tmp-*"))
    assert list((full_disk / "run" / "trainer").glob("step-*"))
    moved = shutil.copytree(full_disk / "run", tmp_path / "run")
    train(recipe, run_dir=moved, resume=True)
    assert outcome(moved) == outcome(train(recipe, run_dir=tmp_path / "whole"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_folder_is_named_with_what_to_do(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="Permission denied.*another place"):
        write_bytes(tmp_path / "a", b"x")


REFUSALS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO]


@pytest.mark.parametrize("number", [*REFUSALS, errno.ENAMETOOLONG])
def test_each_refusal_of_the_system_says_what_to_do(tmp_path, number):
    with pytest.raises(DiskError) as caught, disk_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value) and str(tmp_path / "a") in str(caught.value)


def test_errors_that_are_not_of_the_disk_pass_through(tmp_path):
    for error in (KeyError("a"), FileNotFoundError(errno.ENOENT, "gone"), CheckpointError("ours")):
        with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
            raise error
        assert caught.value is error
    assert system_error(RuntimeError("another matter")) is None


def test_a_run_directory_may_have_any_name(tmp_path):
    name = os.fsdecode(b"run\xff")
    run = train(tiny_recipe(tmp_path, "train.steps=2"), run_dir=tmp_path / name)
    assert (run / "model.safetensors").is_file()
    train(tiny_recipe(tmp_path, "train.steps=4"), run_dir=run, resume=True)


def test_a_corpus_may_have_any_name_too(tmp_path):
    from bytelm.data import Corpus

    (tmp_path / "a.txt").write_bytes(b"abc")
    out = tmp_path / os.fsdecode(b"corpus\xff")
    Corpus.build([tmp_path / "a.txt"], out)
    corpus = Corpus.open(out)
    assert corpus.total_bytes == 3 and len(corpus.column("path")) == 1
