"""Tokenizer training loses no work: whatever ends it, and whatever it is asked for next."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bytelm.cli.app import app, run
from bytelm.errors import BytelmError, CheckpointError, DiskError
from bytelm.tokenizer import BinaryBPE, bpe, training_folder
from bytelm.tokenizer.checkpoint import NAME, Checkpoints
from bytelm.tokenizer.training_folder import train_into

from .conftest import executable_like

DATA = executable_like(9, 30_000)
BASE = 263


@pytest.fixture(scope="module")
def whole() -> BinaryBPE:
    return BinaryBPE.train([DATA], [500])[500]


def left_behind(folder: Path, merges: int, whole: BinaryBPE) -> Checkpoints:
    """A folder as an interrupted run of these data leaves it."""
    checkpoints = Checkpoints(folder)
    digests = []
    BinaryBPE.train([DATA], [BASE], on_progress=lambda _, digest: digests.append(digest))
    checkpoints.report(whole.codec.merges[:merges].astype(np.uint32), digests[0])
    checkpoints.save()
    return checkpoints


@settings(deadline=None, max_examples=25)
@given(found=st.integers(1, 237), sizes=st.lists(st.integers(BASE, 500), min_size=1, max_size=3))
def test_resuming_for_any_sizes_gives_what_a_whole_run_gives(tmp_path_factory, whole, found, sizes):
    """A smaller size than the checkpoint's was an IndexError."""
    folder = tmp_path_factory.mktemp("resumed")
    left_behind(folder, found, whole)
    written = train_into(folder, [DATA], sizes, resume=True)
    assert list(written) == sorted(set(sizes))
    for size, path in written.items():
        assert BinaryBPE.load(path).fingerprint == whole.truncate(size).fingerprint
    # merges that are in no file that was written are still there
    assert (folder / NAME).exists() == (found + BASE > max(sizes))


def test_a_size_the_data_do_not_support_writes_the_others_and_keeps_the_merges(tmp_path, capsys):
    """It wrote nothing and removed the checkpoint."""
    (tmp_path / "in").write_bytes(b"abcabdabeabf" * 60)
    out = tmp_path / "out"
    words = ["tokenizer", "train", str(tmp_path / "in"), "--out", str(out)]
    with pytest.raises(SystemExit) as stopped:
        run([*words, "--vocab-size", "264,266,100000"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "support a vocabulary of" in said
    assert sorted(p.name for p in out.iterdir()) == ["264", "266", NAME]
    assert str(out / "264" / "tokenizer.json") in said and str(out / NAME) in said
    largest = said.partition("--vocab-size ")[2].split()[0]
    result = CliRunner().invoke(app, [*words, "--vocab-size", largest, "--resume"])
    assert result.exit_code == 0, result.output
    made = BinaryBPE.load(out)
    assert made.vocab_size == int(largest)
    again = BinaryBPE.train([b"abcabdabeabf" * 60], [int(largest)])[int(largest)]
    assert made.fingerprint == again.fingerprint
    assert not (out / NAME).exists()


def test_the_library_gives_the_supported_sizes_with_the_error():
    with pytest.raises(bpe.UnsupportedSizeError) as caught:
        BinaryBPE.train([b"abab" * 100], [264, 100_000])
    assert caught.value.largest > 264 and list(caught.value.supported) == [264]


ENDS = {
    "interrupted": KeyboardInterrupt(),
    "out of memory": MemoryError(),
    "a mistake": BytelmError("no"),
    "a fault": RuntimeError("ours"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("least", [1, 150])
def test_whatever_ends_training_the_merges_stay(tmp_path, whole, monkeypatch, end, least):
    monkeypatch.setattr("bytelm.tokenizer.trainer._STEP", 20_000)

    def stop(merges: int) -> None:
        if merges >= least:
            raise ENDS[end]

    told: list[str] = []
    with pytest.raises(type(ENDS[end])):
        train_into(tmp_path, [DATA], [500], on_progress=stop, notify=told.append)
    merges, _ = Checkpoints(tmp_path).load()
    assert len(merges) and str(tmp_path / NAME) in told[0]
    written = train_into(tmp_path, [DATA], [500], resume=True)
    assert BinaryBPE.load(written[500]).fingerprint == whole.fingerprint


def test_a_disk_that_is_full_in_the_end_costs_nothing(tmp_path, whole, monkeypatch):
    def full(self, *_args, **_kwargs):
        raise DiskError("cannot write")

    monkeypatch.setattr(training_folder.BinaryBPE, "save", full)
    with pytest.raises(DiskError):
        train_into(tmp_path, [DATA], [500])
    assert len(Checkpoints(tmp_path).load()[0]) == 500 - BASE
    monkeypatch.undo()
    written = train_into(tmp_path, [DATA], [500], resume=True)
    assert BinaryBPE.load(written[500]).fingerprint == whole.fingerprint


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.json.gz"])
@pytest.mark.parametrize("sizes", ["300", "300,400"])
def test_a_tokenizer_is_not_replaced_unasked(tmp_path, capsys, sizes, name):
    (tmp_path / "in").write_bytes(DATA)
    out = tmp_path / "out"
    place = (out if sizes == "300" else out / "300") / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    words = ["tokenizer", "train", str(tmp_path / "in"), "--out", str(out), "--vocab-size", sizes]
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 2 and "--overwrite" in capsys.readouterr().err
    assert place.read_bytes() == b"mine"
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
    assert (place.parent / "tokenizer.json").read_bytes() != b"mine"


def test_a_checkpoint_is_not_replaced_unasked(tmp_path, whole):
    left_behind(tmp_path, 100, whole)
    with pytest.raises(BytelmError, match="add --resume to continue it, or --overwrite"):
        train_into(tmp_path, [DATA], [500])
    assert len(Checkpoints(tmp_path).load()[0]) == 100
    train_into(tmp_path, [DATA], [500], overwrite=True)
    assert not (tmp_path / NAME).exists()


def test_resuming_with_other_data_keeps_the_checkpoint(tmp_path, whole):
    left_behind(tmp_path, 100, whole)
    with pytest.raises(BytelmError, match="of other data"):
        train_into(tmp_path, [DATA[:-100]], [500], resume=True)
    assert len(Checkpoints(tmp_path).load()[0]) == 100


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:],
    "empty": lambda data: b"",
    "other": lambda data: b"PK\x03\x04 no archive at all",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(tmp_path, whole, damage):
    file = left_behind(tmp_path, 100, whole).path
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(CheckpointError, match="Remove it, and train again"):
        train_into(tmp_path, [DATA], [500], resume=True)


@pytest.mark.parametrize(
    "merges", [np.zeros((3,)), np.zeros((3, 2)), np.array([[0, 256]]), np.array([[1, 2, 3]])]
)
def test_merges_that_cannot_be_are_refused(tmp_path, merges):
    np.savez(tmp_path / NAME, merges=merges, corpus_sha256=np.array("x"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoints(tmp_path).load()
