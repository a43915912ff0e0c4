"""`bytelm classify`, run as a user runs it (in this process)."""

import io
import json
import sys

import pytest

from bytelm.cli.app import run as command_line
from bytelm.lm.classifier import Classifier
from bytelm.loading import load_classifier
from tests.arch.cases import LABELS, make
from tests.lm.contract import transformer
from tests.lm.runs import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "labels"
    return save_run(Classifier(make("encoder"), window=20), folder, arch="encoder")


@pytest.fixture
def classify(capfd):
    def call(*arguments: object, status: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as exit:
            command_line(["classify", *(str(argument) for argument in arguments)])
        out, err = capfd.readouterr()
        assert (exit.value.code or 0) == status, err
        return out, err

    return call


def test_files_are_classified_in_their_order_with_all_probabilities(run, classify, tmp_path):
    texts = {"long": b"sea shells" * 30, "empty": b"", "binary": bytes(range(256))}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    files = [tmp_path / name for name in ("binary", "long", "empty", "long")]
    out, _ = classify(run, *files, "--json")
    results = json.loads(out)["results"]
    assert [result["file"] for result in results] == [str(file) for file in files]
    expected = load_classifier(run).predict([file.read_bytes() for file in files])
    for result, row in zip(results, expected.tolist(), strict=True):
        assert list(result["probabilities"]) == list(LABELS)
        assert list(result["probabilities"].values()) == pytest.approx(row, abs=1e-6)
        assert result["label"] == max(result["probabilities"], key=result["probabilities"].get)


def test_without_json_there_is_a_line_per_file(run, classify, tmp_path):
    (tmp_path / "text").write_bytes(b"sea shells")
    out, err = classify(run, tmp_path / "text")
    file, label, share = out.split()
    assert file == str(tmp_path / "text") and label in LABELS and share.endswith("%") and not err


def test_standard_input_is_a_dash(run, classify, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"sea shells")))
    out, _ = classify(run, "-", "--json")
    [result] = json.loads(out)["results"]
    expected = load_classifier(run).predict([b"sea shells"])[0].tolist()
    assert result["file"] == "-"
    assert list(result["probabilities"].values()) == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_read_is_named_and_the_rest_is_classified(run, classify, tmp_path):
    (tmp_path / "text").write_bytes(b"sea shells")
    out, err = classify(run, tmp_path / "none", tmp_path / "text", tmp_path, "--json", status=2)
    assert [r["file"] for r in json.loads(out)["results"]] == [str(tmp_path / "text")]
    assert f"error: {tmp_path / 'none'}: No such file" in err
    assert f"error: {tmp_path}: Is a directory" in err


def test_a_run_of_another_family_is_refused(classify, tmp_path):
    run = save_run(transformer(), tmp_path / "flat", arch="transformer")
    _, err = classify(run, "-", status=2)
    assert "only encoders classify" in err
