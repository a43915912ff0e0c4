"""Run directories of every kind, made once, and commands run in this process."""

import io
import sys

import pytest

from bytelm.cli.app import run as command_line
from bytelm.recipe import Recipe
from tests.arch.cases import make
from tests.lm import subwords
from tests.lm.contract import hnet, t5, transformer
from tests.lm.runs import save_run

TEXT = "Größe: sea shells, 東京. ".encode() * 4


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with runs of every family, and a text."""
    from bytelm.lm.classifier import Classifier

    folder = tmp_path_factory.mktemp("runs")
    save_run(transformer(), folder / "flat", arch="transformer")
    save_run(hnet(["m1", ["m1", ["T1"], "m1"], "m1"]), folder / "hnet", arch="hnet")
    save_run(transformer(layers=1), folder / "fim", arch="transformer", objective="fim")
    save_run(subwords.transformer(), folder / "subword", arch="transformer")
    save_run(t5(), folder / "t5", arch="t5", objective="seq2seq")
    save_run(Classifier(make("encoder"), window=20), folder / "labels", arch="encoder")
    (folder / "text").write_bytes(TEXT)
    return folder


@pytest.fixture
def bytelm(capfdbinary, monkeypatch):
    """Run a command: (stdout, stderr). stdin: what is piped into it, None for a terminal."""

    def call(*arguments: object, status: int = 0, stdin: bytes | None = None) -> tuple[bytes, str]:
        stream = io.TextIOWrapper(io.BytesIO(stdin or b""))
        stream.isatty = lambda: stdin is None
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SystemExit) as exit:
            command_line([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        assert (exit.value.code or 0) == status, err.decode()
        return out, err.decode()

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run that was trained for two steps, evaluated once."""
    from bytelm.training import train

    folder = tmp_path_factory.mktemp("trained")
    (folder / "train.txt").write_bytes(TEXT * 20)
    (folder / "heldout.txt").write_bytes(TEXT * 2)
    recipe = {
        "model": {"arch": "transformer", "layers": 1, "d_model": 16, "heads": 2},
        "data": {"train": [str(folder / "train.txt")], "heldout": [str(folder / "heldout.txt")]},
        "train": {"steps": 2, "batch_bytes": 128, "context_bytes": 64, "device": "cpu"},
        "evaluate": {"every": 1, "final": False},
        "log": {"every": 1},
    }
    return train(Recipe.from_dict(recipe), run_dir=folder / "run")
