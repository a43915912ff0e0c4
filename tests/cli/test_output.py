"""How commands answer: completion, help, JSON of bytes, terminals, pictures."""

import base64
import inspect
import io
import json
import os
import sys
from typing import Literal, get_args, get_origin

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from bytelm.cli.app import app
from bytelm.cli.app import run as command_line
from bytelm.cli.output import json_of_bytes, printable_bytes, write_bytes
from bytelm.lm.generate import generate
from bytelm.lm.infill import infill
from bytelm.loading import load

from .conftest import TEXT
from .test_matrix import words_of

LIMITS = ["--max-bytes", 12, "--seed", 3]


def complete(line: str, capfd, monkeypatch) -> list[str]:
    """What bash is offered at the end of a command line."""
    monkeypatch.setenv("_BYTELM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit):
        command_line([])
    return capfd.readouterr().out.split("\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("bytelm train hnet-t", "hnet-tiny"),
        ("bytelm models transf", "transformer-16k-tiny"),
        ("bytelm models hn", "hnet"),
        ("bytelm generate x --ensemble s", "switch"),
        ("bytelm generate x --device a", "auto"),
        ("bytelm train hnet-tiny --device m", "mps"),
        ("bytelm score x --mode canonical", "canonicalised"),
        ("bytelm tokenizer unpack x --format t", "tiktoken"),
        ("bytelm infill x --order s", "spm"),
        ("bytelm generate runs/m", "runs/mine"),
        ("bytelm classify runs/m", "runs/mine"),
    ],
)
def test_names_and_choices_are_completed(line, offered, capfd, monkeypatch, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert offered in complete(line, capfd, monkeypatch)


def commands(typer_app=app):
    for command in typer_app.registered_commands:
        yield command.callback
    for group in typer_app.registered_groups:
        yield from commands(group.typer_instance)


def test_an_option_whose_help_lists_its_values_is_an_enumeration():
    """`a or b`, `a, b or c` in a help text: then the type says so, too."""
    for callback in commands():
        for parameter in inspect.signature(callback, eval_str=True).parameters.values():
            kinds = get_args(parameter.annotation)
            info = next((k for k in kinds if hasattr(k, "help")), None)
            if str in kinds and info is not None and parameter.name not in ("device", "vocab_size"):
                words = (info.help or "").rstrip(".").split()
                assert not (len(words) in (3, 4) and "or" in words), (callback, parameter)
            if kinds and get_origin(kinds[0]) is Literal:
                assert all(isinstance(value, str) for value in get_args(kinds[0]))


@pytest.mark.parametrize("words", sorted(words_of()))
def test_every_command_has_short_help_as_wide_as_the_terminal(words, capfd):
    for flag in ("-h", "--help"):
        with pytest.raises(SystemExit) as exit:
            command_line([*words, flag])
        assert not exit.value.code
    out = capfd.readouterr().out
    assert out.count("Usage: bytelm") == 2


def test_help_is_as_wide_as_the_terminal(monkeypatch):
    import subprocess

    widths = []
    for columns in (60, 140):
        done = subprocess.run(
            [sys.executable, "-m", "bytelm", "generate", "-h"],
            env={**os.environ, "COLUMNS": str(columns)},
            capture_output=True,
            text=True,
        )
        widths.append(max(map(len, done.stdout.splitlines())))
    assert widths[0] <= 60 < 110 < widths[1] <= 140


def test_written_bytes_come_as_json_that_holds_any_bytes(runs, bytelm):
    expected = generate(load(runs / "flat"), b"sea", max_bytes=12, seed=3, temperature=0.8)
    found = json.loads(bytelm("generate", runs / "flat", "--prompt", "sea", *LIMITS, "--json")[0])
    assert base64.b64decode(found["base64"]) == expected and found["bytes"] == len(expected)
    (runs / "brief").write_bytes(b"sea")
    files = ["--prefix-file", runs / "brief", "--suffix-file", runs / "brief"]
    out, err = bytelm("infill", runs / "flat", *files, *LIMITS, "--candidates", 3, "--json")
    assert "none of the formats for infilling" in err
    found = json.loads(out)
    expected = infill(
        load(runs / "flat"), prefix=b"sea", suffix=b"sea", max_bytes=12, seed=3, temperature=0.8,
        candidates=3, template="none",
    )  # fmt: skip
    assert base64.b64decode(found["base64"]) == expected and found["template"] is None


@given(st.binary())
def test_json_of_bytes_loses_nothing(data):
    found = json.loads(json.dumps(json_of_bytes(data)))
    assert base64.b64decode(found["base64"]) == data and found["bytes"] == len(data)
    assert found["text"] is None or found["text"].encode() == data


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def shown(pieces: list[bytes], *, terminal: bool) -> bytes:
    raw = io.BytesIO()
    kind = Terminal if terminal else io.TextIOWrapper
    stream = kind(raw, encoding="utf-8", newline="\n")
    before, sys.stdout = sys.stdout, stream
    try:
        write_bytes(pieces)
        stream.flush()
    finally:
        sys.stdout = before
    return raw.getvalue()


@given(st.lists(st.binary(max_size=4)))
def test_a_terminal_obeys_nothing_and_a_pipe_gets_every_byte(pieces):
    """Whatever the pieces are that a text comes in, a terminal is shown the text as a whole."""
    assert shown(pieces, terminal=False) == b"".join(pieces)
    text = shown(pieces, terminal=True).decode()
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert text == printable_bytes(b"".join(pieces)) + "\n"


def test_a_tokenizer_decodes_to_a_pipe_exactly(bytelm, tmp_path):
    from bytelm.tokenizer import BinaryBPE

    BinaryBPE.from_merges([(97, 98)]).save(tmp_path)
    every = bytes(range(256))
    ids, _ = bytelm("tokenizer", "encode", tmp_path, "-", stdin=every)
    assert bytelm("tokenizer", "decode", tmp_path, "-", stdin=ids)[0] == every


def test_the_page_of_chunks_shows_how_surprising_each_byte_was(runs, bytelm, tmp_path):
    page = tmp_path / "page.html"
    bytelm("chunks", runs / "hnet", runs / "text", "--html", page)
    html = page.read_text(encoding="utf-8")
    bits = (-load(runs / "hnet").score(TEXT) / 0.6931471805599453).tolist()
    assert f'title="{bits[0]:.2f} bits"' in html
    assert html.count(' bits">') == len(TEXT.decode())
    assert f"{sum(bits) / len(bits):.3f} bits per byte" in html


def test_pictures_have_titles_and_whole_numbers_where_something_is_counted(trained):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from bytelm.data import Document
    from bytelm.data.inspect import Inspection
    from bytelm.data.plots import draw_bytes, draw_formats, draw_lengths
    from bytelm.evaluate.curve import draw_curves
    from bytelm.training.metrics import read_metrics

    totals = Inspection()
    totals.add(Document(b"some text"))
    axes = Figure().subplots(4)
    for ax, draw in zip(axes, (draw_bytes, draw_lengths, draw_formats), strict=False):
        draw(ax, totals)
    rows = list(read_metrics(trained / "metrics.jsonl"))
    draw_curves(axes[3], runs={"mine": rows, "other": rows})
    assert all(ax.get_title() for ax in axes)
    for axis in (axes[1].yaxis, axes[2].xaxis, axes[3].xaxis):
        assert all(float(tick).is_integer() for tick in axis.get_majorticklocs())
    labels = [line.get_label() for line in axes[3].lines]
    assert labels == ["mine, training", "mine, held-out", "other, training", "other, held-out"]
    assert list(axes[3].lines[1].get_ydata()) == [
        row["heldout_bits_per_byte"] for row in rows if "heldout_bits_per_byte" in row
    ]


def test_typer_has_the_literals_that_we_use():
    assert tuple(map(int, typer.__version__.split(".")[:2])) >= (0, 19)
