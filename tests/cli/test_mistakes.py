"""Mistakes: found before torch loads, told in a sentence with the nearest right answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bytelm.errors import CheckpointError
from bytelm.loading import load
from bytelm.model_paths import no_model, require_model

from .conftest import TEXT

ROOT = Path(__file__).parents[2]

# command, and what the error says; {runs} holds the runs flat, hnet, fim, ... and a text
EARLY = [
    (["generate", "{runs}/falt"], "did you mean {runs}/flat?"),
    (["generate", "{runs}/flat/model.safetensors"], "a part of a run: give its directory"),
    (["generate", "{runs}"], "is no model but holds some"),
    (["generate", "{runs}/text"], "is not a model"),
    (["generate", "hnet-tiny"], "bytelm train hnet-tiny"),
    (["generate", "{runs}/flat", "--model", "{runs}/nope"], "no model at {runs}/nope"),
    (["generate", "{runs}/flat", "--temperature", "-1"], "--temperature"),
    (["generate", "{runs}/flat", "--top-p", "3"], "top_p must be"),
    (["generate", "{runs}/flat", "--top-k", "-1"], "--top-k"),
    (["generate", "{runs}/flat", "--stop", ""], "a stop string"),
    (["generate", "{runs}/flat", "--beams", "2", "--min-p", "0.5"], "cannot be combined"),
    (["generate", "{runs}/flat", "--prompt-file", "{runs}/nope"], "{runs}/nope: No such file"),
    (["generate", "{runs}/flat", "--prompt-file", "{runs}"], "{runs}: Is a directory"),
    (["generate", "{runs}/flat", "--ensemble", "bays"], "did you mean 'bayes'"),
    (["generate", "{runs}/flat", "--ensemble", "bayes"], "needs several models"),
    (["generate", "{runs}/flat", "--weights", "1"], "needs several models"),
    (["generate", "{runs}/flat", "--start", "bos"], "--start takes numbers"),
    (["generate", "{runs}/flat", "--device", "gpu"], "unknown device 'gpu'"),
    (["next", "{runs}/flat", "--top", "0"], "--top"),
    (["score", "{runs}/falt", "{runs}/text"], "did you mean {runs}/flat?"),
    (["score", "{runs}/flat", "{runs}/nope"], "No such file"),
    (["infill", "{runs}/flat", "--prefix-file", "{runs}/nope", "--suffix-file", "-"], "nope"),
    (
        ["infill", "{runs}/flat", "--prefix-file", "-", "--suffix-file", "x", "--order", "pms"],
        "psm",
    ),
    (
        [
            "infill",
            "{runs}/fim",
            "--prefix-file",
            "{runs}/text",
            "--suffix-file",
            "{runs}/text",
            "--template",
            "bytlem",
        ],
        "did you mean 'bytelm'",
    ),
    (["eval", "{runs}/falt", "{runs}/text"], "did you mean {runs}/flat?"),
    (["eval", "{runs}/flat", "{runs}/txet"], "did you mean 'text'"),
    (["eval", "{runs}/flat", "{runs}/text", "--primed", "{runs}/nope"], "nope does not exist"),
    (["eval", "{runs}/labels", "{runs}/text", "--window", "5"], "--window mean nothing here"),
    (["data", "inspect", "{runs}/txet"], "did you mean 'text'"),
    (["data", "build", "{runs}/txet", "--out", "{runs}/corpus"], "did you mean 'text'"),
    (["data", "build", "{runs}/text", "--out", "{runs}/c", "--heldout", "2"], "--heldout"),
    (["chunks", "{runs}/hnte", "{runs}/text"], "did you mean {runs}/hnet?"),
    (["chunks", "{runs}/hnet", "{runs}/nope"], "No such file"),
    (["classify", "{runs}/lable", "{runs}/text"], "did you mean {runs}/labels?"),
    (["plot", "{runs}/nope", "--out", "{runs}/x.png"], "no model at"),
    (["plot", "{runs}/flat", "--out", "{runs}/x.txt"], ".png, .svg or .pdf"),
    (["train", "hnet-tny"], "did you mean 'hnet-tiny'"),
    (["train", "nowhere/x.toml"], "no recipe file"),
    (["train", "hnet-tiny", "steps=3"], "write train.steps"),
    (["train", "hnet-tiny", "stepz=3"], "did you mean train.steps?"),
    (["train", "hnet-tiny", "warmup=3"], "write schedule.warmup"),
    (["train", "hnet-tiny", "train.stpes=3"], "did you mean 'steps'"),
    (["train", "hnet-tiny", "--train.steps=3"], "write train.steps=3"),
    (["train", "hnet-tiny", "--resum"], "did you mean '--resume'"),
    (["train", "hnet-tiny", "train.steps"], "section.key=value"),
    (["nonsense"], "No such command"),
    (["generate"], "Missing argument"),
    (["generate", "{runs}/flat", "--promt", "x"], "--prompt"),
]
_RUN_ALL = """
import contextlib, importlib.abc, io, json, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name.split('.')[0] in ('torch', 'transformers', 'datasets', 'numba'):
            raise ImportError('too late: ' + name)
sys.meta_path.insert(0, Block())
from bytelm.cli.app import run
results = []
for argv in json.load(sys.stdin):
    err = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stderr(err):
        try:
            run(argv)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    err.seek(0)
    results.append([code, err.read()])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(runs):
    """Exit code and stderr of every command in EARLY, all in one process without torch."""
    commands = [[word.format(runs=runs) for word in command] for command, _ in EARLY]
    done = subprocess.run(
        [sys.executable, "-c", _RUN_ALL],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(EARLY)), ids=lambda i: " ".join(EARLY[i][0]))
def test_a_mistake_is_found_before_torch_loads(results, runs, number):
    code, err = results[number]
    message = EARLY[number][1].format(runs=runs)
    assert code == 2, err
    assert message in err
    assert len(err) < 700, "an error is short"


def test_library_and_commands_say_the_same_of_a_path_that_is_no_model(runs):
    for path in (runs / "falt", runs, runs / "text", runs / "flat" / "config.json"):
        with pytest.raises(CheckpointError) as of_library:
            load(path)
        with pytest.raises(CheckpointError) as of_command:
            require_model(path)
        assert str(of_library.value) == str(of_command.value)


def test_what_is_near_is_a_model_and_never_hidden(tmp_path):
    for name in (".tmp-12-flat", "flat.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".flat").mkdir()
    (tmp_path / ".flat" / "config.json").touch()
    assert "did you mean" not in no_model(tmp_path / "flat")
    for i in range(2000):
        (tmp_path / f"run-{i}").mkdir()
        (tmp_path / f"run-{i}" / "config.json").touch()
    assert f"did you mean {tmp_path}/run-" in no_model(tmp_path / "run-x")
    assert len(no_model(tmp_path)) < 500


def test_a_run_of_the_folder_runs_may_be_meant_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert "did you mean runs/mine?" in no_model(Path("mine"))
    assert "give its directory, runs/mine" in no_model(Path("runs/mine/config.json"))


def test_a_prompt_that_is_text_says_encode(runs):
    with pytest.raises(ValueError, match="a prompt is bytes, not str: encode it"):
        load(runs / "flat").start("str")


def test_control_characters_of_a_file_name_are_not_obeyed(runs, bytelm):
    _, err = bytelm("score", runs / "flat", runs / "a\x1b[2Jb\udcff", status=2)
    assert "\x1b" not in err and "\\x1b[2Jb" in err and "No such file" in err


def test_the_text_is_scored_where_nothing_is_mistaken(runs, bytelm):
    assert json.loads(bytelm("score", runs / "flat", runs / "text", "--json")[0])["bytes"] == len(
        TEXT
    )
