"""Every command in every awkward situation: the right answer, or a sentence and exit 2.

Never a traceback. The table below is the whole command line; a command that is missing in it fails
the first test.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bytelm.cli.app import app
from bytelm.cli.app import run as command_line

ROOT = Path(__file__).parents[2]
BINARY = bytes(range(256)) * 3 + b"\xff\xfe\x00"
LIMITS = ["--max-bytes", "4", "--seed", "1"]

# {file} is what the situation puts there; {runs} holds runs, {trained} is one that was trained,
# {tokenizer} a tokenizer, {recipe} a recipe of one step, {out} a new path
COMMANDS = {
    "train": ["train", "{file}", "--run", "{out}"],
    "train on": ["train", "{recipe}", 'data.train=["{file}"]', "--run", "{out}"],
    "eval": ["eval", "{runs}/flat", "{file}"],
    "eval of": ["eval", "{file}", "{runs}/text"],
    "eval labels": ["eval", "{runs}/labels", "{file}"],
    "generate": ["generate", "{runs}/flat", "--prompt-file", "{file}", *LIMITS],
    "generate of": ["generate", "{file}", "--prompt", "a", *LIMITS],
    "generate by": ["generate", "{runs}/flat", "--prompt", "a", "--draft", "{file}", *LIMITS],
    "score": ["score", "{runs}/flat", "{file}"],
    "next": ["next", "{runs}/flat", "--prompt-file", "{file}"],
    "infill": ["infill", "{runs}/flat", "--prefix-file", "{file}", "--suffix-file",
               "{runs}/text", *LIMITS, "--candidates", "2"],
    "chunks": ["chunks", "{runs}/hnet", "{file}"],
    "classify": ["classify", "{runs}/labels", "{file}"],
    "fill": ["fill", "{runs}/labels", "--text-file", "{file}"],
    "plot": ["plot", "{file}", "--out", "{out}.png"],
    "export": ["export", "{file}", "{out}", "--quantize", "int8"],
    "models": ["models", "{file}"],
    "data build": ["data", "build", "{file}", "--out", "{out}"],
    "data inspect": ["data", "inspect", "{file}"],
    "tokenizer train": ["tokenizer", "train", "{file}", "--vocab-size", "270", "--out", "{out}"],
    "tokenizer encode": ["tokenizer", "encode", "{tokenizer}", "{file}"],
    "tokenizer encode of": ["tokenizer", "encode", "{file}", "{runs}/text"],
    "tokenizer decode": ["tokenizer", "decode", "{tokenizer}", "{file}"],
    "tokenizer inspect": ["tokenizer", "inspect", "{tokenizer}", "{file}"],
    "tokenizer evaluate": ["tokenizer", "evaluate", "{tokenizer}", "{file}"],
    "tokenizer unpack": ["tokenizer", "unpack", "{file}", "--out", "{out}"],
}  # fmt: skip
SITUATIONS = ("missing", "directory", "empty", "binary", "stdin")
# the exit status where it is certain; of the others either may be right
_FAIL_ON_EMPTY = {"train", "train on", "eval", "score", "chunks", "plot", "models"}
_READS_BINARY = {
    *("train on", "eval", "generate", "score", "next", "infill", "chunks", "classify"),
    *("data build", "data inspect", "tokenizer encode", "tokenizer inspect", "tokenizer evaluate"),
}


def words_of(typer_app=app, prefix=()):
    """Every command of the application."""
    for command in typer_app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        yield (*prefix, name)
    for group in typer_app.registered_groups:
        yield from words_of(group.typer_instance, (*prefix, group.name))


def test_the_table_holds_every_command():
    shown = {tuple(w for w in argv if w[0] not in "{-") for argv in COMMANDS.values()}
    for words in words_of():
        assert any(argv[: len(words)] == words for argv in shown), words


@pytest.fixture(scope="module")
def places(runs, trained, tmp_path_factory):
    """What the placeholders of a situation stand for."""
    from bytelm.tokenizer import BinaryBPE
    from bytelm.training import train
    from tests.objectives.test_masked_words import recipe_of

    folder = tmp_path_factory.mktemp("matrix")
    masked = recipe_of(tmp_path_factory.mktemp("masked"), "train.steps=2", "evaluate.every=2")
    train(masked, run_dir=folder / "masked")
    (folder / "directory").mkdir()
    (folder / "empty").touch()
    (folder / "binary").write_bytes(BINARY)
    BinaryBPE.from_merges([(97, 98)]).save(folder / "tokenizer")
    return {
        "runs": str(runs),
        "trained": str(trained),
        "recipe": str(trained / "recipe.toml"),
        "tokenizer": str(folder / "tokenizer"),
        "masked": str(folder / "masked"),
        "folder": folder,
    }


def argv_of(name, situation, places, out):
    folder = places["folder"]
    file = "-" if situation == "stdin" else str(folder / situation)
    return [word.format(**places, file=file, out=out) for word in COMMANDS[name]]


@pytest.fixture
def call(capfdbinary, monkeypatch, tmp_path):
    """Run a command in this process: (status, stdout, stderr); all but an exit is a failure."""

    def run(argv, stdin=b""):
        stream = io.TextIOWrapper(io.BytesIO(stdin))
        stream.isatty = lambda: not stdin
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit:
            command_line(argv)
        out, err = capfdbinary.readouterr()
        return exit.value.code or 0, out, err.decode()

    return run


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_not_as_expected(name, situation, places, call, tmp_path):
    argv = argv_of(name, situation, places, tmp_path / "out")
    status, _, err = call(argv, stdin=BINARY if situation == "stdin" else b"")
    assert status in (0, 2), err
    assert "Traceback" not in err
    if situation == "missing" or (situation == "empty" and name in _FAIL_ON_EMPTY):
        assert status == 2, err
    if situation == "binary" and name in _READS_BINARY:
        assert status == 0, err
    if situation == "stdin" and name in _READS_BINARY - {"train on"}:  # data that is read again
        assert status == 0, err
    if status == 2:
        assert len(err.strip()) > 20 and len(err) < 1500, err


def test_a_trained_run_is_plotted(places, call, tmp_path):
    status, _, err = call(["plot", places["trained"], "--out", str(tmp_path / "curve.png")])
    assert status == 0, err
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", sorted({*words_of(), (), ("data",), ("tokenizer",)}))
def test_no_arguments(words, call):
    status, out, err = call(list(words))
    if words == ("models",):
        assert status == 0 and b"hnet-tiny" in out
    else:
        assert status == 2 and ("Missing" in err or b"Usage" in out or "Usage" in err), err


_ALL = """
import json, os, sys
from bytelm.cli.app import run
commands, closed = json.load(sys.stdin)
sys.stdin = open(os.devnull)
real, results = sys.stdout, []
for argv in commands:
    read, write = os.pipe()
    if closed:
        os.close(read)
    else:
        os.set_blocking(write, False)
    sys.stdout = open(write, "w", encoding=real.encoding)
    try:
        run(argv)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        code = repr(error)
    try:
        sys.stdout.close()
    except BaseException as error:
        code = "closing: " + repr(error)
    if not closed:
        os.close(read)
    results.append(code)
print(json.dumps(results), file=real)
"""


# commands that the binary file is nothing for, with what they give an answer to
_ANSWERED = {
    "eval labels": ["eval", "{runs}/flat", "{runs}/text", "--json"],
    "export": ["export", "{runs}/flat", "{out}", "--quantize", "int8"],
    "fill": ["fill", "{masked}", "--text", "red [MASK] red"],
    "models": ["models", "hnet"],
    "plot": ["plot", "{trained}", "--out", "{out}.png"],
    "tokenizer decode": ["tokenizer", "decode", "{tokenizer}", "{folder}/ids"],
    "tokenizer train": ["tokenizer", "train", "{runs}/text", "--vocab-size=270", "--out", "{out}"],
    "tokenizer unpack": ["tokenizer", "unpack", "{tokenizer}", "--out", "{out}"],
}


def answered(places, folder):
    """Every command with a right answer, and the help of everything."""
    (places["folder"] / "ids").write_text("97 98 " * 99)
    for number, name in enumerate(sorted({*_READS_BINARY, *_ANSWERED})):
        if name in _ANSWERED:
            yield [word.format(**places, out=folder / f"{number}") for word in _ANSWERED[name]]
        else:
            yield argv_of(name, "binary", places, folder / f"{number}")
    groups = {words[:1] for words in words_of() if len(words) > 1}
    yield from ([*words, "--help"] for words in sorted({(), *groups, *words_of()}))
    yield ["--version"]


@pytest.mark.parametrize("closed", [False, True], ids=["LC_ALL=C", "closed stdout"])
def test_a_terminal_of_ascii_and_a_reader_that_has_gone(closed, places, tmp_path):
    """All commands with a right answer, one after another in one process."""
    commands = list(answered(places, tmp_path))
    asked = {tuple(argv) for argv in commands}
    assert all(
        any(argv[: len(w)] == w and "--help" not in argv for argv in asked) for w in words_of()
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not closed:
        environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _ALL],
        input=json.dumps([commands, closed]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    failed = [(argv, code) for argv, code in zip(commands, codes, strict=True) if code != 0]
    assert not failed, (failed, done.stderr)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["data", "--help"], ["--version"]])
def test_a_pipe_into_head(argv, tmp_path):
    """`bytelm --help | head -1`, as a process of its own: what the interpreter says at its end."""
    command = f"exec {sys.executable} -m bytelm {' '.join(argv)}"
    script = f"set -o pipefail; ({command}) | head -1 | cut -c1-200; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "0", (done.stdout, done.stderr)
