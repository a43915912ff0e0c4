"""`model.from`: a run or a released checkpoint as the beginning of another model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import bytelm
from bytelm.cli.app import app
from bytelm.errors import BytelmError, RecipeError
from bytelm.loading import load_model
from bytelm.recipe import Recipe
from bytelm.run import Run
from bytelm.training import train
from bytelm.training.build import build
from tests.objectives.runs import reverser
from tests.training.runs import outcome
from tests.training.test_distributed import assert_same_curve, train_on

GATED = ["model.arch=mrt5", "model.encoder_layers=2", "model.rate=0.4", "model.k_i=0.01"]


def mrt5(folder, *overrides: str) -> Recipe:
    return reverser(folder, *GATED, *overrides)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("origin")
    return train(reverser(folder, "model.encoder_layers=2", "train.steps=3"), run_dir=folder / "t5")


def test_a_run_is_where_another_begins(begun, tmp_path):
    model = build(reverser(tmp_path, "model.encoder_layers=2", f"model.from={begun}"))
    stored = Run(begun).read_weights()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_an_mrt5_begins_as_a_t5_with_a_new_gate_and_takes_its_sizes(begun, tmp_path):
    tree = mrt5(tmp_path).to_dict()
    tree["model"] = {"arch": "mrt5", "from": str(begun), "rate": 0.4}
    recipe = Recipe.from_dict(tree)
    assert recipe.arch_config.d_model == 16 and recipe.arch_config.encoder_layers == 2
    model, stored = build(recipe), Run(begun).read_weights()
    for name, value in model.state_dict().items():
        assert name.startswith(model.added) or torch.equal(value, stored[name])
    # the run that begins there needs its origin no more
    shutil.copytree(begun, tmp_path / "moved")
    recipe = recipe.override([f"model.from={tmp_path}/moved", "train.steps=2"])
    run = train(recipe, run_dir=tmp_path / "run")
    shutil.rmtree(tmp_path / "moved")
    assert load_model(run).config.d_model == 16
    longer = Run(run).recipe().override(["train.steps=4"])
    train(longer, run_dir=run, resume=True)
    assert len(outcome(run)[0]) >= 4


def test_a_released_checkpoint_is_one_too_whole_or_in_shards(begun, tmp_path):
    config, weights = bytelm.hub.to_official(load_model(begun))
    folder = tmp_path / "byt5"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors"
    )
    recipe = mrt5(tmp_path, f"model.from={folder}")
    whole = build(recipe).state_dict()
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, part in shards.items():
        save_file({name: weights[name].clone() for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    parts = build(recipe).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in parts.items())
    assert torch.equal(whole["embeddings.weight"], Run(begun).read_weights()["embeddings.weight"])


def test_what_does_not_fit_says_what_to_do(begun, tmp_path):
    with pytest.raises(BytelmError, match=r"d_model|leave out the settings of \[model\]"):
        build(mrt5(tmp_path, f"model.from={begun}", "model.d_model=32"))
    with pytest.raises(BytelmError, match="tensors missing"):
        build(mrt5(tmp_path, f"model.from={begun}", "model.encoder_layers=3"))
    with pytest.raises(BytelmError, match="no model at"):
        build(mrt5(tmp_path, "model.from=nowhere"))
    with pytest.raises(RecipeError, match="give the path"):
        mrt5(tmp_path, "model.from=3")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RecipeError, match="model.from: feed_forward_proj is 'relu'"):
        mrt5(tmp_path, f"model.from={tmp_path}/other")


def test_the_controller_steers_in_training_and_survives_a_pause(tmp_path):
    whole = train(mrt5(tmp_path), run_dir=tmp_path / "whole")
    parts = tmp_path / "parts"
    train(mrt5(tmp_path, "train.steps=5"), run_dir=parts)
    train(mrt5(tmp_path), run_dir=parts, resume=True)
    memories = [load_model(run).controller.memory for run in (whole, parts)]
    assert torch.equal(*memories) and memories[0].any()
    rows = [[row for row in outcome(run)[0] if "alpha" in row] for run in (whole, parts)]
    assert [row["alpha"] for row in rows[0]] == [row["alpha"] for row in rows[1]]
    # by the formula, from the rates that were logged
    assert len(rows[0]) == 12
    p = i = 0.0
    for row in rows[0]:
        assert row["alpha"] == pytest.approx(max(0.0, p + i), abs=1e-6)
        error = 0.4 - row["deleted"]
        p, i = 0.9 * p + 0.1 * 0.5 * error, i + 0.01 * error


def test_two_ranks_steer_as_one(tmp_path):
    alone = train(mrt5(tmp_path), run_dir=tmp_path / "alone")
    assert_same_curve(train_on(2, mrt5(tmp_path), tmp_path / "two"), outcome(alone)[0])


def test_float16_is_refused_with_the_reason(tmp_path):
    with pytest.raises(RecipeError, match="train.dtype = 'float16': .*65,504"):
        mrt5(tmp_path, "train.dtype=float16")


def test_pairs_may_be_tab_separated(tmp_path):
    recipe = reverser(tmp_path)
    for name in ("train", "heldout"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        lines = ["target\tsource", *(f"{row['target']}\t{row['source']}" for row in rows)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    tabs = [f"data.train={tmp_path}/train.tsv", f"data.heldout={tmp_path}/heldout.tsv"]
    run, same = (
        train(r, run_dir=tmp_path / f"run{i}")
        for i, r in enumerate([recipe, recipe.override(tabs)])
    )
    assert outcome(run)[0] == outcome(same)[0]


def test_deleted_bytes_are_struck_out(tmp_path):
    run = train(mrt5(tmp_path, "train.steps=2"), run_dir=tmp_path / "run")
    (tmp_path / "text").write_bytes("a word, ένα".encode())
    done = CliRunner().invoke(app, ["chunks", str(run), f"{tmp_path}/text", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["bytes"] == 14 and set(told["deleted"]) <= set(range(14))
    done = CliRunner().invoke(app, ["chunks", str(run), f"{tmp_path}/text"])
    assert done.exit_code == 0 and "bytes deleted" in done.output
