"""The commands, from files to files: results, mistakes, interruption."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from typer.testing import CliRunner

from bytelm.cli.app import app, run
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.checkpoint import Checkpoints

from .conftest import CORPORA, executable_like


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in CORPORA.items():
        (tmp_path / "in" / name.replace(" ", "-")).write_bytes(data)
    return tmp_path


def call(*words: object) -> str:
    result = CliRunner().invoke(app, ["tokenizer", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(["tokenizer", *map(str, words)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_train_encode_decode_round_trip(folder):
    out = folder / "out"
    told = json.loads(
        call("train", folder / "in", "--vocab-size", "400,600", "--out", out, "--json")
    )
    assert told["vocab_sizes"] == [400, 600]
    assert sorted(p.name for p in out.iterdir()) == ["400", "600"]
    source, ids, back = folder / "in/executable", folder / "x.npy", folder / "back"
    call("encode", out / "600", source, "--out", ids)
    assert np.load(ids).dtype == np.uint16
    call("decode", out / "600", ids, "--out", back)
    assert back.read_bytes() == source.read_bytes()


def test_ids_as_text_decode_too(folder):
    call("train", folder / "in", "--vocab-size", "400", "--out", folder / "one")
    printed = call("encode", folder / "one", folder / "in/text")
    (folder / "ids.txt").write_text(printed)
    call("decode", folder / "one", folder / "ids.txt", "--out", folder / "back")
    assert (folder / "back").read_bytes() == CORPORA["text"]


def test_inspect_and_evaluate_report(folder):
    call("train", folder / "in", "--vocab-size", "400,600", "--out", folder / "o")
    page = folder / "page.html"
    told = json.loads(
        call("inspect", folder / "o/600", folder / "in/executable", "--html", page, "--nested",
             folder / "o/400", "--json")
    )  # fmt: skip
    assert told["nested"] == {str(folder / "o/400"): True}
    assert sum(told["tokens_by_length"].values()) == 600 - 7
    assert "ELF" not in told["commonest"][0]["kind"] and told["commonest"][0]["counts"]
    html = page.read_text()
    assert html.count("<span class=") > 100 and "executable" in html
    told = json.loads(call("evaluate", folder / "o/600", folder / "in/zeros", "--against",
                           folder / "o/400", "--json"))  # fmt: skip
    large, small = told["tokenizers"].values()
    assert large["bytes"] == len(CORPORA["zeros"])
    assert large["bytes_per_token"] >= small["bytes_per_token"] > 1


def test_unpack_writes_what_other_libraries_read(folder):
    call("train", folder / "in", "--vocab-size", "400", "--out", folder / "one")
    bpe = BinaryBPE.load(folder / "one")
    bpe.save(folder / "packed", compress=True)
    call("unpack", folder / "packed", "--vocab-size", 300, "--layout", "latin-1")
    assert BinaryBPE.load(folder / "packed/tokenizer.json").token_bytes == bpe.token_bytes[:300]


def test_unpack_writes_the_files_of_sentencepiece_and_tiktoken(folder, capsys):
    call("train", folder / "in", "--vocab-size", "400", "--out", folder / "one")
    bpe = BinaryBPE.load(folder / "one")
    for name, data in {
        "sentencepiece": bpe.to_sentencepiece(),
        "tiktoken": bpe.to_tiktoken(),
    }.items():
        path = call("unpack", folder / "one", "--format", name).strip()
        assert Path(path).read_bytes() == data
    wrong = mistake(capsys, "unpack", folder / "one", "--format", "sentence-piece")
    assert "did you mean 'sentencepiece'" in wrong


def test_a_file_that_may_not_be_read_is_told_and_nothing_is_written(folder, capsys, monkeypatch):
    denied, reach = folder / "in/executable", Path.open

    def opened(self, *args, **options):
        if self == denied:  # root may read what chmod forbids
            raise PermissionError(13, "Permission denied", str(self))
        return reach(self, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    err = mistake(capsys, "train", folder / "in", "--vocab-size", "400", "--out", folder / "o")
    assert "Permission denied" in err and "executable" in err and not (folder / "o").exists()


def test_a_text_tokenizer_is_compared_on_the_same_bytes(folder):
    """A vocabulary with GPT-2's splitting rule and word marks, as text tokenizers have."""
    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text.train_from_iterator(
        [CORPORA["text"].decode()],
        trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False),
    )
    text.save(str(folder / "text.json"))
    call("train", folder / "in/executable", "--vocab-size", "400", "--out", folder / "o")
    told = {}
    for name in ("executable", "text"):
        command = ["evaluate", folder / "o", folder / "in" / name, "--json"]
        told[name] = json.loads(call(*command, "--against", folder / "text.json"))
    ratios = {
        name: [usage["bytes_per_token"] for usage in value["tokenizers"].values()]
        for name, value in told.items()
    }
    assert ratios["executable"][0] > 1.5 > 1.1 > ratios["executable"][1] >= 1
    assert ratios["text"][1] > 2 > ratios["text"][0]
    assert told["text"]["raw_bytes"] == 1


@pytest.mark.parametrize(
    "words, message",
    [
        (["--vocab-size", "100"], "at least 263"),
        (["--vocab-size", "many"], "numbers separated by commas"),
        (["--entropy", "7"], "LOW,HIGH"),
        (["--max-memory", "1 lot"], "expected a size"),
        (["--max-memory", "10M"], "at least"),
        (["--layout", "utf-8", "--vocab-size", "300"], "is not one of 'byte-level'"),
        (["--piece-length", "0"], "piece_length"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(folder, capsys, words, message):
    (folder / "small").write_bytes(b"abab" * 100)
    err = mistake(capsys, "train", folder / "small", "--out", folder / "none", *words)
    assert message in err and not (folder / "none").exists()


def test_missing_and_empty_input_are_told(folder, capsys):
    (folder / "empty").write_bytes(b"")
    assert "nothing to train on" in mistake(
        capsys, "train", folder / "empty", "--out", folder / "o"
    )
    assert "does not exist" in mistake(capsys, "train", folder / "gone", "--out", folder / "o")
    assert not (folder / "o").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(folder, monkeypatch):
    (folder / "big").write_bytes(executable_like(9, 40_000))
    arguments = [folder / "big", "--vocab-size", "800"]
    call("train", *arguments, "--out", folder / "whole")
    first = BinaryBPE.load(folder / "whole").truncate(500)
    state = Checkpoints(folder / "broken")
    digests: list[str] = []
    report = Checkpoints.report

    def interrupt(self, merges, digest):
        report(self, first.codec.merges, digest)
        digests.append(digest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "report", interrupt)
    words = ["tokenizer", "train", *map(str, arguments), "--out", str(folder / "broken")]
    assert CliRunner().invoke(app, words).exit_code == 130
    assert [p.name for p in (folder / "broken").iterdir()] == [state.path.name]
    monkeypatch.setattr(Checkpoints, "report", report)
    call("train", *arguments, "--out", folder / "broken", "--resume")
    left = sorted(path.name for path in (folder / "broken").iterdir())
    assert left == ["tokenizer.json", "tokenizer_config.json"]
    whole = (folder / "whole/tokenizer.json").read_bytes()
    assert (folder / "broken/tokenizer.json").read_bytes() == whole
