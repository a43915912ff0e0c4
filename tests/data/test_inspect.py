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


def test_plots_are_drawn_from_the_counts():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from bytelm.data.inspect import Inspection
    from bytelm.data.plots import draw_bytes, draw_formats, draw_lengths

    totals = Inspection()
    for data in (b"", b"aab", b"x" * 9, b"\x00asm\x01\x00\x00\x00"):
        totals.add(Document(data))
    axes = Figure().subplots(3)
    for ax, draw in zip(axes, (draw_bytes, draw_lengths, draw_formats), strict=True):
        draw(ax, totals)
    heights = [[bar.get_height() for bar in ax.patches] for ax in axes[:2]]
    assert heights[0][ord("a")] == 3 and heights[0][0] == 4 and len(heights[0]) == 256
    assert heights[1] == [1, 0, 1, 0, 2]  # lengths 0, 1, 2-3, 4-7, 8-15
    names = [label.get_text() for label in axes[2].get_yticklabels()]
    counts = [bar.get_width() for bar in axes[2].patches]
    assert dict(zip(names, counts, strict=True)) == dict(totals.formats)


@pytest.mark.parametrize("data", [b"", b"some text"])
def test_the_plots_command_writes_three_pictures(tmp_path, data):
    pytest.importorskip("matplotlib")
    (tmp_path / "a.txt").write_bytes(data)
    plots = tmp_path / "deep" / "plots"
    command = ["data", "inspect", str(tmp_path / "a.txt"), "--json", "--plots", str(plots)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(done.stdout)["documents"] == 1
    assert {p.name for p in plots.iterdir()} == {"bytes.png", "lengths.png", "formats.png"}
    for path in plots.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_plots_without_matplotlib_name_the_extra(tmp_path, monkeypatch):
    import sys

    from bytelm.data.inspect import Inspection
    from bytelm.data.plots import plot_inspection
    from bytelm.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"bytelm\[plots\]"):
        plot_inspection(Inspection(), tmp_path)
