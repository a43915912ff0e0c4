"""Bits per byte: every byte counted once, the ends apart, and known answers for known models."""

import math
import subprocess
from pathlib import Path
from shutil import which

import pytest
import torch

from bytelm.arch.transformer import Transformer, TransformerConfig
from bytelm.data import Corpus, Reading
from bytelm.data.sources import MemorySource
from bytelm.errors import DataError
from bytelm.evaluate.bits import evaluate_bits
from bytelm.evaluate.compressors import available, compressed_bits_per_byte, primed_bits_per_byte
from bytelm.evaluate.documents import read_documents
from bytelm.evaluate.report import table
from bytelm.lm import dfa
from bytelm.lm.native import NativeLM
from bytelm.lm.ngram import NgramLM
from bytelm.vocab import ByteVocab
from tests.lm.contract import ngram, transformer

TEXT = b"".join(b"%d green bottles hanging on the wall. " % n for n in range(200))


def test_a_model_that_knows_nothing_scores_the_logarithm_of_the_outcomes():
    model = Transformer(TransformerConfig(layers=1, d_model=16, heads=2), ByteVocab())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    result = evaluate_bits(NativeLM(model, window=20, stride=7), [TEXT[:100], b"", b"x"])
    assert result.bits_per_byte == pytest.approx(math.log2(257), abs=1e-6)
    assert result.end_bits == pytest.approx(3 * math.log2(257), abs=1e-5)
    assert (result.bytes, result.documents) == (101, 3)


@pytest.mark.parametrize("make", [ngram, transformer])
def test_the_sum_is_that_of_stepping_through_every_document(make, monkeypatch):
    lm = make()
    documents = [b"sea shells", b"", b"\x00\xff" * 9, b"s"]
    nats = ends = 0.0
    for document in documents:
        state = lm.start()
        for byte in document:
            nats -= float(state.logprobs()[byte])
            state = state.feed(bytes([byte]))
        ends -= float(state.logprobs()[256])
    for group in (1, 12, 1 << 20):
        monkeypatch.setattr("bytelm.evaluate.bits._GROUP_BYTES", group)
        result = evaluate_bits(lm, iter(documents))
        assert result.bits == pytest.approx(nats / math.log(2), rel=1e-9)
        assert result.end_bits == pytest.approx(ends / math.log(2), rel=1e-9)
        assert result.bytes == 29 and result.documents == 4


def test_the_reading_window_is_reported():
    assert evaluate_bits(transformer(window=9, stride=2), [b"abc"]).to_dict()["stride"] == 2
    assert evaluate_bits(ngram(), [b"abc"]).window is None


@pytest.mark.parametrize("documents", [[], [b""], [b"", b""]])
def test_no_bytes_have_no_bits_per_byte(documents):
    with pytest.raises(DataError, match="nothing to measure"):
        evaluate_bits(ngram(), documents)


def test_impossible_bytes_are_reported_instead_of_infinity():
    lm = ngram()
    lm._logprobs = lambda contexts, outcome: torch.where(
        torch.from_numpy(outcome) == 122, -math.inf, -1.0
    ).numpy()
    with pytest.raises(DataError, match=r"document 1 .*byte 0x7a at offset 2"):
        evaluate_bits(lm, [b"ab", b"abz"])


@pytest.mark.parametrize("command", ["gzip -9", "xz -9e", "zstd -19"])
def test_compressors_agree_with_the_command_line_tools(command, tmp_path):
    name = command.split()[0]
    if not which(name):
        pytest.skip(f"{name} is not installed")
    text = Path(dfa.__file__).read_bytes()
    (tmp_path / "data").write_bytes(text)
    run = subprocess.run([*command.split(), "-c", tmp_path / "data"], capture_output=True)
    expected = 8 * len(run.stdout) / len(text)
    # gzip stores the file's name; versions of zstd differ a little
    assert compressed_bits_per_byte(text)[name] == pytest.approx(expected, rel=0.02)


def test_priming_with_related_text_helps_and_with_noise_does_not():
    cold = compressed_bits_per_byte(TEXT[4000:])
    primed = primed_bits_per_byte(TEXT[4000:], TEXT[:4000])
    assert set(primed) == {"xz", "ppmd"} & set(available())
    assert all(figure < 0.8 * cold[name] for name, figure in primed.items())


def test_the_table_sorts_the_model_among_its_rivals():
    lm = NgramLM.train([TEXT], order=5)
    lines = table(
        evaluate_bits(lm, [TEXT]), name="ngram", compressors={"gzip": 9.0, "xz": 0.0}
    ).splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["xz", "ngram", "gzip"]
    assert f"{len(TEXT):,} bytes in 1 documents" in lines[-1]


def test_documents_come_from_files_records_archives_and_corpora(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.bin").write_bytes(b"\x00")
    (tmp_path / "a.txt").write_bytes(b"first")
    (tmp_path / "c.jsonl").write_text('{"body": "x"}\n{"body": "yz"}\n')
    folder = str(tmp_path / "sub")
    assert read_documents([str(tmp_path / "a.txt"), folder]) == [b"first", b"\x00"]
    records = str(tmp_path / "c.jsonl")
    assert read_documents([records], reading=Reading(field="body")) == [b"x", b"yz"]
    assert read_documents([records], reading=Reading(raw=True)) == [
        (tmp_path / "c.jsonl").read_bytes()
    ]
    Corpus.build(MemorySource([b"one", b"", b"\xff"]), tmp_path / "corpus")
    assert read_documents([str(tmp_path / "corpus")]) == [b"one", b"", b"\xff"]
    with pytest.raises(DataError, match="missing"):
        read_documents([str(tmp_path / "missing")])
