"""Inspection: each figure against a hand count, and the commands end to end."""

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bytelm.cli.app import app
from bytelm.cli.app import run as run_main
from bytelm.data import Corpus, Document
from bytelm.data.inspect import inspect
from bytelm.errors import DataError

DATA = Path(__file__).resolve().parents[2] / "data"


@settings(max_examples=15)  # xz -9e sets up 64 MB whatever the size
@given(documents=st.lists(st.binary(max_size=50), max_size=6))
def test_counts_and_entropy(documents):
    report = inspect(Document(d) for d in documents)
    joined = b"".join(documents)
    shares = [n / len(joined) for n in Counter(joined).values()]
    assert report["documents"] == len(documents) and report["bytes"] == len(joined)
    assert report["byte_entropy"] == pytest.approx(-sum(p * math.log2(p) for p in shares), abs=1e-9)
    assert report["duplicate_documents"] == len(documents) - len(set(documents))
    assert report["empty_documents"] == documents.count(b"")
    json.dumps(report, allow_nan=False)


def test_utf8_shares_formats_and_scripts():
    documents = [b"ab", "бв".encode(), b"\xff\xfe\xfd" * 2, b"PK\x03\x04...."]
    report = inspect(Document(d) for d in documents)
    assert report["utf8_documents"] == 0.75
    assert report["utf8_bytes"] == round(14 / 20, 4)
    assert report["formats"] == {"text": 2, "data": 1, "zip": 1}
    # letters: 2 Latin, 2 Cyrillic, and P and K of the zip's magic
    assert report["scripts"] == {"LATIN": 0.6667, "CYRILLIC": 0.3333}


def test_the_sample_is_bounded_and_said():
    report = inspect([Document(b"abcdefgh" * 100)] * 3, sample_bytes=1000)
    assert report["sample_bytes"] == 1000 and report["bytes"] == 2400
    packed = gzip.compress((b"abcdefgh" * 300)[:1000], 9)
    assert report["bits_per_byte"]["gzip"] == round(8 * len(packed) / 1000, 4)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_build_then_inspect_then_open(tmp_path):
    out = tmp_path / "corpus"
    result = run("data", "build", DATA / "scripts", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (corpus,) = json.loads(result.stdout)["corpora"]
    files = sorted((DATA / "scripts").glob("*.txt"))
    assert corpus["documents"] == len(files) == len(Corpus.open(out))
    assert corpus["bytes"] == sum(f.stat().st_size for f in files)
    report = json.loads(run("data", "inspect", out, "--json").stdout)
    assert report["documents"] == len(files)
    writing = "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI CJK HANGUL THAI"
    assert set(writing.split()) <= set(report["scripts"])
    assert report == json.loads(run("data", "inspect", DATA / "scripts", "--json").stdout)


def test_build_with_a_split(tmp_path):
    result = run("data", "build", DATA / "scripts", "--out", tmp_path / "c", "--heldout", "0.3")
    assert result.exit_code == 0, result.output
    parts = [Corpus.open(tmp_path / "c" / name) for name in ("train", "heldout")]
    assert sum(map(len, parts)) == 20


def test_the_table_is_readable():
    output = run("data", "inspect", DATA / "executables").stdout
    assert "elf arm64" in output and "bits per byte" in output


def test_a_user_mistake_is_one_paragraph_and_status_2(tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        run_main(["data", "build", "nowhere", "--out", str(tmp_path / "c")])
    assert stopped.value.code == 2
    told = capfd.readouterr().err.strip()
    assert "error: nowhere does not exist" in told and told.count("\n") <= 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_inspect_is_told(tmp_path):
    result = run("data", "inspect", tmp_path)
    assert result.exit_code == 0 and "nothing was found" in result.output
    assert isinstance(run("data", "inspect", tmp_path / "x").exception, DataError)
