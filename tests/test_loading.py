"""Loading: a run directory is enough, and a damaged one is explained."""

import json

import pytest
import torch

import bytelm
from bytelm.errors import BytelmError, CheckpointError
from bytelm.loading import load
from bytelm.run import Description, Run
from tests.lm.contract import hnet, transformer
from tests.lm.runs import save_run
from tests.training.runs import tiny_recipe


@pytest.fixture
def run(tmp_path):
    return save_run(transformer(), tmp_path / "run", arch="transformer")


@pytest.mark.parametrize(
    ("arch", "make"), [("transformer", transformer), ("hnet", lambda: hnet(["m1", ["T1"], "m1"]))]
)
def test_a_loaded_model_is_the_saved_one(tmp_path, arch, make):
    original = make()
    path = save_run(original, tmp_path, arch=arch)
    lm = bytelm.load(path)
    assert (lm.window, lm.stride) == (63, 31)
    found = bytelm.load(path, window=original.window, stride=original.stride).score(b"some bytes")
    torch.testing.assert_close(found, original.score(b"some bytes"))


def test_only_models_trained_to_infill_offer_its_symbols(tmp_path):
    causal = save_run(transformer(), tmp_path / "a", arch="transformer")
    filling = save_run(transformer(), tmp_path / "b", arch="transformer", objective="fim")
    assert "fim_prefix" not in load(causal).specials
    assert "fim_prefix" in load(filling).specials


def test_a_run_offers_the_symbols_it_was_trained_with(tmp_path):
    path = save_run(transformer(), tmp_path, arch="transformer")
    description = json.loads((path / "config.json").read_text())
    del description["objective"]
    description["specials"] = ["bos", "sep"]
    (path / "config.json").write_text(json.dumps(description))
    assert load(path).specials == {"bos": 257, "sep": 260}


def test_an_option_that_means_nothing_for_a_path_is_an_error(run):
    with pytest.raises(BytelmError, match="mode is not an option of .*, which is a run over bytes"):
        load(run, mode="all")
    with pytest.raises(BytelmError, match="beam is .*: it takes window, stride, device"):
        load(run, window=8, beam=3)


def test_what_a_model_was_made_with_is_stored_and_given_back(tmp_path):
    """A constructor's keyword arguments (the labels of a classifier) come from config.json."""
    recipe = tiny_recipe(tmp_path)
    description = Description.of(
        recipe, transformer().model, specials=("bos",), arguments={"labels": ["elf", "pe"]}
    )
    Run(tmp_path / "run").begin(recipe, description, files={"tokenizer.json": b"{}"})
    stored = Run(tmp_path / "run").description()
    assert stored == description and (tmp_path / "run" / "tokenizer.json").read_bytes() == b"{}"


def test_nothing_there_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="no model at"):
        load(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(CheckpointError, match="is not a model"):
            load(path)


def test_truncated_weights_are_said_so(run):
    weights = (run / "model.safetensors").read_bytes()
    for size in (0, 5, 100, len(weights) - 1):
        (run / "model.safetensors").write_bytes(weights[:size])
        with pytest.raises(CheckpointError, match="truncated"):
            load(run)
    (run / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load(run)


def test_a_description_that_does_not_fit_is_said_so(run):
    path = run / "config.json"
    description = json.loads(path.read_text())

    def rewritten(**changes: object) -> None:
        path.write_text(json.dumps({**description, **changes}))

    rewritten(config={**description["config"], "hidden": 48})
    with pytest.raises(CheckpointError, match="do not fit"):
        load(run)
    rewritten(config={**description["config"], "layerz": 2})
    with pytest.raises(CheckpointError, match="layerz"):
        load(run)
    rewritten(arch="transfomer")
    with pytest.raises(ValueError, match="did you mean 'transformer'"):
        load(run)
    rewritten(vocabulary={"sentinels": 0, "specials": {"eos": 1}})
    with pytest.raises(ValueError, match="another id scheme"):
        load(run)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load(run)
