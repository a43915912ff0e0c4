"""The house rules that packaging and architecture depend on."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.import_graph import circles, import_graph, modules

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "bytelm").rglob("*.py"))

# What each part may import besides itself: names of modules or packages of bytelm. Imports run one
# way (DESIGN): errors, vocab, files <- nn, data, tokenizer <- arch, objectives <- training;
# lm.protocol <- exact, lm <- loading <- evaluate, hub, cli. The longest name that fits decides.
_BASE = ("errors", "damage", "vocab", "files", "paths", "version", "compiled")
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "version": (),
    "damage": ("errors",),
    "model_bounds": ("errors",),
    "compiled": (),
    "threads": ("errors",),
    "memory": (),
    "locks": (),
    "device": ("errors",),
    "progress": ("errors",),
    "pictures": ("errors", "files"),
    "vocab": ("errors",),
    "files": ("errors", "locks"),
    "registry": ("errors",),
    "paths": (),
    "nn": ("errors", "vocab", "device"),
    "nn.loops": ("compiled",),
    "data": (*_BASE, "registry", "memory", "locks", "pictures"),
    "tokenizer": (*_BASE, "data", "threads"),
    "arch": ("errors", "vocab", "device", "data.batch", "nn"),
    "objectives": (*_BASE, "data", "nn", "tokenizer"),
    "recipe_sections": ("paths", "data.settings"),
    "recipe_overrides": ("errors", "recipe_sections"),
    "recipe": ("errors", "damage", "registry", "recipe_sections", "recipe_overrides"),
    "run_model": (
        *("errors", "damage", "model_bounds", "vocab", "registry", "run", "arch.base"),
        "nn.quantized",
    ),
    "run": ("errors", "damage", "vocab", "files", "version", "recipe"),
    "training": (
        *(*_BASE, "progress", "memory", "locks", "device", "arch.base", "data", "objectives"),
        *("recipe", "recipe_sections", "registry", "run", "run_model", "tokenizer", "weights"),
    ),
    "lm": ("errors", "vocab", "data.batch", "arch.base", "nn"),
    "lm.subword": (*_BASE, "data.batch", "arch.base", "tokenizer", "exact", "lm"),
    "exact": (
        *(*_BASE, "memory", "model_bounds", "lm.protocol", "lm.scored", "lm.sliding_context"),
        *("lm.running_logprob", "lm.fim_templates"),
    ),
    "exact.models.trained": ("errors", "vocab", "exact", "arch.base", "nn", "tokenizer"),
    "model_paths": ("errors", "registry", "recipe"),
    "loading": (
        *("errors", "vocab", "registry", "run", "run_model", "device", "model_paths"),
        *("lm", "exact", "tokenizer"),
    ),
    "evaluate": (
        *(*_BASE, "arch.base", "data", "objectives", "recipe", "run", "training"),
        *("lm", "loading", "pictures"),
    ),
    "weights": ("errors", "damage"),
    "hub": (
        *("errors", "damage", "weights", "model_bounds", "vocab", "nn", "arch", "lm", "loading"),
    ),
    "hub.quantize": ("errors", "files", "arch.base", "nn", "loading", "run"),
}
GRAPH = {
    name.removeprefix("bytelm").removeprefix("."): {
        other.removeprefix("bytelm.") for other in found - {"bytelm"}
    }
    for name, found in import_graph(modules()).items()
}


def inside(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("module", [m for m in GRAPH if m and not inside(m, "cli")])
def test_imports_run_one_way(module):
    if module == "__main__":
        return
    rule = max((name for name in ALLOWED if inside(module, name)), key=len)
    allowed = (*ALLOWED[rule], module.partition(".")[0] if "." not in rule else rule)
    wrong = {
        found
        for found in GRAPH[module]
        # a module of an allowed package, or a package that an allowed module is in
        if not any(inside(found, name) or inside(name, found) for name in allowed)
    }
    assert not wrong


def test_no_files_import_one_another_in_a_circle():
    """Imports inside functions count: a circle is opened by moving code, not by hiding imports."""
    assert circles(GRAPH) == []


def test_architectures_never_import_one_another():
    for module, found in GRAPH.items():
        if inside(module, "arch") and module != "arch":
            own = ".".join(module.split(".")[:2])
            parts = {other for other in found if inside(other, "arch")}
            shared = {"arch", "arch.base", "arch.backbone", "arch.chunk_stats"}
            assert {other for other in parts if not inside(other, own)} <= shared, module


def test_asset_folders_hold_no_python():
    for folder in ("models", "tokenizers", "data"):
        assert not list((ROOT / folder).rglob("*.py"))


def test_bundled_data_stays_small():
    assert sum(p.stat().st_size for p in (ROOT / "data").rglob("*") if p.is_file()) <= 8 << 20


def test_no_source_file_outgrows_a_reader():
    for path in SOURCES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_help_and_public_names_need_no_torch():
    blocker = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        "        heavy = ('torch', 'numpy', 'transformers', 'datasets', 'numba', 'pyarrow')\n"
        "        if name.split('.')[0] in heavy:\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import bytelm\n"
        "assert 'ByteLM' in dir(bytelm)\n"
        "from bytelm.cli.app import run\n"
        "run(sys.argv[1:])\n"
    )
    commands = [["--help"], ["train", "--help"], ["tokenizer", "--help"], ["generate", "--help"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", blocker, *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Usage: bytelm" in done.stdout


def test_every_public_name_resolves():
    import bytelm

    for name in bytelm.__all__:
        assert getattr(bytelm, name) is not None
    with pytest.raises(AttributeError, match="generate"):
        bytelm.no_such_name  # noqa: B018


def test_a_wheel_ships_recipes_and_samples_and_an_editable_install_makes_no_folder_of_ours():
    """A force-included file below bytelm/ would be installed in editable mode too, and a folder
    site-packages/bytelm/ hides the package from every place but the repository."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    assert wheel["only-include"] == ["bytelm", "models", "data", "tokenizers"]
    assert wheel["sources"] == {
        "models": "bytelm/_recipes",
        "data": "bytelm/_bundled/data",
        "tokenizers": "bytelm/_bundled/tokenizers",
    }
    assert "force-include" not in build and "force-include" not in wheel
    # a path: with an import finder (dev-mode-exact), the compiled files that an earlier install
    # leaves in site-packages/bytelm/ would hide the package
    assert build["dev-mode-dirs"] == ["."] and "dev-mode-exact" not in build


def test_recipes_are_found_here_then_in_the_repository_then_in_the_wheel(tmp_path, monkeypatch):
    from bytelm.recipe import find_recipe, recipe_folders

    monkeypatch.chdir(tmp_path)
    assert find_recipe("hnet-tiny") == ROOT / "models" / "hnet-tiny.toml"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hnet-tiny.toml").touch()
    assert find_recipe("hnet-tiny") == Path("models/hnet-tiny.toml")
    assert recipe_folders()[-1] == ROOT / "bytelm" / "_recipes"


def test_every_recipe_is_valid_and_has_a_card():
    from bytelm.recipe import Recipe

    names = [p.stem for p in (ROOT / "models").glob("*.toml")]
    assert {"hnet-tiny", "hnet-small", "transformer-tiny", "mambabyte-tiny"} <= set(names)
    for name in names:
        recipe = Recipe.load(ROOT / "models" / f"{name}.toml")
        assert name.startswith((recipe.model.arch, "mambabyte", "blt-patcher")), name
        assert (ROOT / "models" / f"{name}.md").is_file(), f"{name} has no card"


def test_readme_commands_exist():
    """Every `bytelm COMMAND` and `--option` that the README shows is a real one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"^(?:bytelm|python train\.py) .*$", readme, flags=re.M):
        words = line.split("#")[0].split()
        command = ["train"] if words[0] == "python" else [w for w in words[1:3] if w.isalpha()]
        command = command[: 2 if command[0] in ("data", "tokenizer") else 1]
        done = subprocess.run(
            [sys.executable, "-m", "bytelm", *command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, line
        for option in re.findall(r"--[a-z][a-z0-9-]+", line):
            assert option in done.stdout, f"{line}: no {option}"
