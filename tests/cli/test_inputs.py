"""What commands read: piped prompts, `-`, and nothing twice."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from bytelm.lm.generate import generate
from bytelm.loading import load
from bytelm.tokenizer import BinaryBPE

from .conftest import TEXT

LIMITS = ["--max-bytes", 12, "--seed", 3]


def test_a_piped_prompt_is_the_prompt(runs, bytelm):
    """echo "The people of " | bytelm generate RUN"""
    prompt = b"The people of \n"
    expected = generate(load(runs / "flat"), prompt, max_bytes=12, seed=3, temperature=0.8)
    assert bytelm("generate", runs / "flat", *LIMITS, stdin=prompt)[0] == expected
    piped = json.loads(bytelm("next", runs / "flat", "--json", stdin=prompt)[0])
    asked = json.loads(bytelm("next", runs / "flat", "--prompt", prompt.decode(), "--json")[0])
    assert piped == asked


def test_a_prompt_that_is_given_leaves_the_pipe_alone(runs, bytelm):
    given = [*LIMITS, "--prompt", "sea"]
    alone = bytelm("generate", runs / "flat", *given)[0]
    assert bytelm("generate", runs / "flat", *given, stdin=b"not this")[0] == alone


def test_a_context_from_the_pipe_is_no_prompt(runs, bytelm):
    piped = bytelm("generate", runs / "flat", *LIMITS, "--context-file", "-", stdin=b"sea")[0]
    assert piped == bytelm("generate", runs / "flat", *LIMITS, "--context", "sea")[0]


def test_nothing_is_asked_of_a_terminal_or_of_a_closed_input(runs, bytelm, monkeypatch):
    alone = bytelm("generate", runs / "flat", *LIMITS)[0]
    assert alone == bytelm("generate", runs / "flat", *LIMITS, "--prompt", "")[0]
    code = f"exec {sys.executable} -m bytelm generate {runs / 'flat'} --max-bytes 12 --seed 3 <&-"
    done = subprocess.run(["sh", "-c", code], capture_output=True)
    assert (done.returncode, done.stdout) == (0, alone), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "flat", "--prompt-file", "-", "--context-file", "-"],
        ["infill", "flat", "--prefix-file", "-", "--suffix-file", "-"],
        ["score", "flat", "-", "--context-file", "-"],
        ["classify", "labels", "-", "-"],
    ],
)
def test_standard_input_is_read_once_or_refused(runs, bytelm, command):
    name, run, *rest = command
    _, err = bytelm(name, runs / run, *rest, status=2, stdin=b"text")
    assert "can be read once only" in err


@pytest.mark.parametrize(
    "command",
    [
        ["score", "flat", "{}", "--json"],
        ["chunks", "hnet", "{}", "--json"],
        ["infill", "flat", "--prefix-file", "{}", "--suffix-file", "{runs}/text", *LIMITS],
        ["generate", "flat", "--prompt-file", "{}", *LIMITS],
        ["next", "flat", "--prompt-file", "{}", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_a_dash_is_standard_input_everywhere(runs, bytelm, command):
    """The same output from a file and from `-`."""
    name, run, *rest = command
    answers = [
        bytelm(
            name,
            runs / run,
            *(str(word).format(place, runs=runs) for word in rest),
            stdin=TEXT if place == "-" else None,
        )[0]
        for place in (runs / "text", "-")
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("command", [("score", "flat"), ("chunks", "hnet"), ("classify", "labels")])
@pytest.mark.parametrize("place", ["file", "-"])
def test_a_compressed_text_is_taken_as_it_stands_and_this_is_said(
    command, place, runs, bytelm, tmp_path
):
    packed = gzip.compress(TEXT)
    (tmp_path / "x.gz").write_bytes(packed)
    name, run = command
    file = tmp_path / "x.gz" if place == "file" else "-"
    _, told = bytelm(name, runs / run, file, stdin=packed if place == "-" else None)
    assert "gzip data, which this command takes as it stands: not unpacked" in told
    assert "stands" not in bytelm(name, runs / run, runs / "text")[1]


@pytest.mark.parametrize("command", ["eval", "data inspect", "data build", "tokenizer train"])
def test_a_compressed_text_in_a_pipe_is_the_text(command, runs, bytelm, tmp_path):
    """`cat x.txt.gz | bytelm eval RUN -` measured the gzip bytes; now what `x.txt.gz` does."""
    packed, folder = gzip.compress(TEXT), tmp_path / "x"
    (tmp_path / "x.txt.gz").write_bytes(packed)
    before = [runs / "flat"] if command == "eval" else []
    after = {"data build": ["--out", folder], "tokenizer train": ["--out", folder, "--overwrite"]}
    more = [*after.get(command, []), *(["--vocab-size", "270"] if "train" in command else [])]
    more += ["--overwrite"] if "build" in command else []
    answers = [
        bytelm(*command.split(), *before, file, *more, "--json", stdin=stdin)[0]
        for file, stdin in ((tmp_path / "x.txt.gz", None), ("-", packed))
    ]
    found, piped = map(json.loads, answers)
    for report in (found, piped):  # of `eval`
        report.pop("seconds", None), report.pop("bytes_per_second", None)
    assert piped == found


def test_a_tokenizer_encodes_and_decodes_standard_input(bytelm, tmp_path):
    BinaryBPE.from_merges([(97, 98)]).save(tmp_path)
    ids, _ = bytelm("tokenizer", "encode", tmp_path, "-", stdin=b"abab\xff")
    assert bytelm("tokenizer", "decode", tmp_path, "-", stdin=ids)[0] == b"abab\xff"


def test_a_pipe_from_the_shell_is_a_prompt_too(runs):
    done = subprocess.run(
        [sys.executable, "-m", "bytelm", "next", runs / "flat", "--json"],
        input=b"sea\x00\xff",
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    [first, *_] = json.loads(done.stdout)["next"]
    best = load(runs / "flat").start(b"sea\x00\xff").logprobs()
    assert first["outcome"] == int(best.argmax()), done.stderr
