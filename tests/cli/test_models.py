"""`bytelm models` tells every setting of everything that has a name; each is described."""

import json
from typing import Literal

import pytest

from bytelm.cli.app import run as command_line
from bytelm.cli.settings import settings_of, type_text
from bytelm.recipe import KINDS, Recipe
from bytelm.registry import ARCHITECTURES, OBJECTIVES


@pytest.fixture
def bytelm(capsys):
    def call(*arguments: str, status: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as exit:
            command_line(["models", *arguments])
        assert (exit.value.code or 0) == status
        return capsys.readouterr()

    return call


CONFIGS = {
    **{
        f"{registry.kind} {name}": part.Config
        for registry in (ARCHITECTURES, OBJECTIVES)
        for name, part in registry.items()
    },
    **{
        section: Recipe.model_fields[section].annotation
        for section in ("model", "objective", "data", "train", "evaluate", "log")
    },
    **{kind.__name__: kind for kinds in KINDS.values() for kind in kinds},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_setting_has_a_description(config):
    undescribed = [s["name"] for s in settings_of(config) if not s["description"]]
    assert not undescribed, f"give them Field(description=...): {undescribed}"


def test_types_are_said_in_words_with_their_limits():
    from pydantic import BaseModel, Field

    class Config(BaseModel):
        rate: float = Field(0.5, ge=0, le=1)
        unit: Literal["byte", "word"] | None = None
        sizes: tuple[int, ...]

    rate, unit, sizes = settings_of(Config)
    assert (rate["type"], rate["default"]) == ("number >= 0 and <= 1", 0.5)
    assert (unit["type"], unit["default"], unit["required"]) == (
        '"byte" | "word" | none',
        None,
        False,
    )
    assert (sizes["type"], sizes["required"]) == ("list of integer", True)
    assert type_text(dict) == "dict"


@pytest.mark.parametrize("name", ["hnet", "transformer", "fim", "causal"])
def test_an_architecture_or_objective_is_shown_with_its_settings(bytelm, name):
    found = json.loads(bytelm(name, "--json")[0])
    shown, _ = bytelm(name)
    assert found["name"] == name and found["kind"] in ("architecture", "objective")
    assert found["summary"] in shown
    for setting in found["settings"]:
        assert f"  {setting['name']}: {setting['type']} (" in shown
        assert setting["description"].split()[0] in shown


def test_a_recipe_is_shown_whole_as_a_recipe_could_be_written(bytelm):
    import tomllib

    found = json.loads(bytelm("hnet-tiny", "--json")[0])
    assert found["parameters"] > 5_000_000 and found["flops_per_byte"] > 0
    shown, _ = bytelm("hnet-tiny")
    written = tomllib.loads(shown[shown.index("[model]") :])
    assert Recipe.from_dict({"name": "hnet-tiny", **written}) == Recipe.load("hnet-tiny")
    assert found["settings"] == Recipe.load("hnet-tiny").to_dict()
    assert "# peak learning rate" in shown


def test_a_name_that_nothing_has_comes_with_the_nearest_one(bytelm):
    _, err = bytelm("hnet-tin", status=2)
    assert "did you mean 'hnet-tiny'" in err


def test_without_a_name_everything_is_listed(bytelm):
    listed = json.loads(bytelm("--json")[0])
    assert listed["architectures"] == ARCHITECTURES.targets()
    assert listed["objectives"] == OBJECTIVES.targets()
    rows = {row["name"]: row for row in listed["recipes"]}
    assert rows["hnet-tiny"]["arch"] == "hnet" and rows["hnet-tiny"]["context_bytes"] == 1024
    text, _ = bytelm()
    assert all(name in text for name in (*rows, *OBJECTIVES.names()))
