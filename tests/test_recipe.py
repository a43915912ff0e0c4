"""Recipes: what is accepted, what is refused, and how well the refusal explains itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from bytelm.errors import RecipeError
from bytelm.recipe import Recipe, find_recipe

BASE = {
    "model": {"arch": "transformer", "layers": 1, "d_model": 16, "heads": 2},
    "data": {"train": ["train.txt"], "heldout": ["heldout.txt"]},
    "train": {"steps": 10},
}


def recipe(*overrides: str) -> Recipe:
    return Recipe.from_dict(BASE, overrides=overrides)


def refusal(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides)
    return str(caught.value)


def test_a_recipe_written_as_toml_reads_back_equal():
    for change in ("seed=1", "optimizer.kind=adamw", "schedule.kind=constant", "data.heldout=[]"):
        made = recipe(change)
        assert Recipe.from_dict(tomllib.loads(made.to_toml())) == made


def test_the_settings_that_the_documentation_names_exist():
    """Every `section.key` in code marks of docs/scaling.md."""
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[`'](data|train|log)\.(?!py\b)(\w+)", text))
    assert len(named) > 8
    for section, key in named:
        assert key in Recipe.model_fields[section].annotation.model_fields, f"{section}.{key}"


def test_overrides_take_toml_values_and_bare_strings():
    made = recipe(
        "optimizer.lr=1e-3", "train.dtype=float32", 'data.train=["a", "b"]', "train.compile=true"
    )
    assert made.optimizer.lr == 1e-3 and made.train.dtype == "float32"
    assert made.data.train == ["a", "b"] and made.train.compile is True
    assert recipe("data.train=one.txt").data.train == ["one.txt"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizr.lr=1", "unknown section 'optimizr'; did you mean 'optimizer'?"),
        ("optimizer.lrr=1", "unknown setting of [optimizer] 'lrr'; did you mean 'lr'?"),
        ("train.stps=1", "unknown setting of [train] 'stps'; did you mean 'steps'?"),
        ("optimizer.kind=adm", "unknown optimizer.kind 'adm'; did you mean 'adamw'?"),
        ("schedule.kind=linear", "unknown schedule.kind 'linear'"),
        ("train.steps=many", "train.steps = 'many'"),
        ("train.steps=0", "train.steps = 0"),
        ("train.dtype=float16", "use bfloat16, which has the range of float32"),
        ("train.dtype=float8", "'float32' or 'bfloat16'"),
        ("schedule.warmup=1.5", "schedule.warmup = 1.5: an integer counts steps"),
        ("train.context_bytes=1000", "must be a multiple of train.context_bytes"),
        ("train.steps", "an override is section.key=value"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ('data.train=["a","b"]', None),
        ("data.weights=[1.0, 2.0]", "data.weights has no effect"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(override, expected):
    if expected is None:
        recipe(override)
        return
    base = {**BASE, "seed": 0}
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(base, overrides=[override])
    assert expected in str(caught.value)


def test_weights_must_match_the_paths():
    assert "2 numbers for 3 paths" in refusal('data.train=["a","b","c"]', "data.weights=[1.0,2.0]")


def test_a_recipe_must_say_when_to_stop():
    base = {**BASE, "train": {}}
    with pytest.raises(RecipeError, match="does not say when to stop"):
        Recipe.from_dict(base)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.kind=adamw", "optimizer.muon_lr=0.1"],
        ["schedule.kind=constant", "schedule.decay=0.5"],
        ["schedule.kind=cosine", "schedule.decay=0.5"],
        ["evaluate.every=0", "evaluate.bytes=100"],
        ["data.heldout=[]", "evaluate.every=3"],
        ["train.checkpoint_every=0", "train.keep_last=3"],
        ["data.record_size=32"],
        ["objective.rate=0.3"],
    ],
)
def test_a_setting_without_effect_is_refused(overrides):
    message = refusal(*overrides)
    assert "has no effect" in message
    assert overrides[-1].partition("=")[0] in message


def test_a_file_setting_without_effect_is_refused_too():
    base = {**BASE, "optimizer": {"kind": "adamw", "momentum": 0.9}}
    with pytest.raises(RecipeError, match="optimizer.momentum has no effect"):
        Recipe.from_dict(base)


def test_switching_a_kind_by_override_drops_the_settings_of_the_old_kind():
    base = {**BASE, "optimizer": {"kind": "muon", "muon_lr": 0.1, "lr": 0.5}}
    made = Recipe.from_dict(base, overrides=["optimizer.kind=adamw"])
    assert made.optimizer.model_dump()["lr"] == 0.5
    assert "muon_lr" not in made.to_dict()["optimizer"]


def test_switching_the_architecture_drops_its_settings():
    made = recipe("model.arch=hnet", 'model.layout=["m2"]')
    assert made.model.settings == {"layout": ["m2"]}


def test_settings_of_the_architecture_are_checked_by_its_config():
    with pytest.raises(RecipeError, match="did you mean 'layers'"):
        _ = recipe("model.layer=3").arch_config
    with pytest.raises(RecipeError, match="model.layers = 0"):
        _ = recipe("model.layers=0").arch_config
    with pytest.raises(RecipeError, match="did you mean 'transformer'"):
        _ = recipe("model.arch=transfomer").arch_config
    assert recipe("model.layers=3").arch_config.layers == 3


def test_recipes_are_found_by_path_then_in_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    text = recipe().to_toml()
    (tmp_path / "models" / "mine.toml").write_text(text)
    (tmp_path / "other.toml").write_text(text)
    assert find_recipe("mine").samefile("models/mine.toml")
    assert find_recipe("other.toml").samefile("other.toml")
    assert Recipe.load("mine").name == "run"  # the file's own name wins over its stem
    with pytest.raises(RecipeError, match="did you mean 'mine'"):
        find_recipe("mime")
    with pytest.raises(RecipeError, match="there is no recipe file"):
        find_recipe("models/none.toml")


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"[model\n")
    with pytest.raises(RecipeError, match="not valid TOML"):
        Recipe.load(tmp_path / "bad.toml")


def test_loading_a_recipe_does_not_import_torch(tmp_path):
    (tmp_path / "a.toml").write_text(recipe().to_toml())
    code = f"import sys; from bytelm import Recipe; Recipe.load({str(tmp_path / 'a.toml')!r}); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recipes_know_every_window_policy():
    from bytelm import recipe_sections
    from bytelm.data import windows

    assert get_args(recipe_sections.Policy) == get_args(windows.Policy)


def test_how_data_is_read_is_checked_before_any_is():
    assert recipe("data.max_unpacked=2GiB", "data.max_window=4096").data.max_unpacked == "2GiB"
    assert "a size such as 2GiB" in refusal("data.max_unpacked=much")
    for name, value in (("ratio", "0.5"), ("nesting", "-1"), ("members", "0"), ("window", "0k")):
        assert f"data.max_{name} = " in refusal(f"data.max_{name}={value}")
    assert "choose one of them" in refusal("data.strict=true", "data.skip_errors=true")
    settings = ["model.arch=t5", "objective.kind=seq2seq", "data.policy=truncate"]
    told = refusal(*settings, "data.field=words")
    assert "data.field has no effect" in told and "objective.source and objective.target" in told
