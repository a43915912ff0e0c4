"""What bundled recipes name is found from any folder, and is in the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bytelm.data import bundled
from bytelm.data.bundled import find_data, has_match
from bytelm.recipe import Recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "models").glob("*.toml"))
_LIMIT = 10_000_000  # bytes of the wheel


def paths_of(recipe: Recipe) -> list[str]:
    data = recipe.data
    return [*data.train, *data.heldout, *([data.tokenizer] if data.tokenizer else [])]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_names_is_found_from_any_folder(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in paths_of(Recipe.load(recipe)):
        assert has_match(Path(find_data(path))), path


def test_what_is_here_comes_before_what_is_bundled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_data("data/prose/heldout.txt") == str(ROOT / "data/prose/heldout.txt")
    (tmp_path / "data/prose").mkdir(parents=True)
    (tmp_path / "data/prose/heldout.txt").touch()
    assert find_data("data/prose/heldout.txt") == "data/prose/heldout.txt"
    assert find_data("data/prose/nothing.txt") == "data/prose/nothing.txt"


def test_an_installed_package_never_takes_what_lies_beside_it(tmp_path, monkeypatch):
    """site-packages/ may hold folders of these names: that of Hugging Face tokenizers, to begin
    with."""
    package = tmp_path / "site-packages" / "bytelm"
    (package / "_bundled" / "data").mkdir(parents=True)
    (package / "_bundled" / "data" / "ours.txt").touch()
    (tmp_path / "site-packages" / "data").mkdir()
    for name in ("ours.txt", "theirs.txt"):
        (tmp_path / "site-packages" / "data" / name).touch()
    monkeypatch.setattr(bundled, "_PACKAGE", package)
    monkeypatch.setattr(bundled, "_WHEEL", package / "_bundled")
    monkeypatch.chdir(tmp_path)
    assert find_data("data/ours.txt") == str(package / "_bundled" / "data" / "ours.txt")
    assert find_data("data/theirs.txt") == "data/theirs.txt"


@pytest.mark.slow  # pip fetches hatchling
def test_the_wheel_holds_every_sample_and_tokenizer_and_stays_small(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < _LIMIT
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (
        ("data", "bytelm/_bundled/data"),
        ("tokenizers", "bytelm/_bundled/tokenizers"),
        ("models", "bytelm/_recipes"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                assert f"{place}/{path.relative_to(ROOT / folder).as_posix()}" in names, path
