"""The house rules that packaging and architecture depend on."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "bytelm").rglob("*.py"))

# Each part may import these parts of bytelm (and itself); DESIGN: imports run one way.
_BASE = {"vocab", "errors", "files", "compiled", "registry"}
ALLOWED = {
    "vocab": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "compiled": set(),
    "memory": set(),
    "data": _BASE | {"nn", "memory"},
    "nn": _BASE,
    "tokenizer": _BASE | {"data"},
    "arch": _BASE | {"data", "nn"},
    "objectives": _BASE | {"data", "tokenizer"},
    "registry": {"errors"},
    "recipe": _BASE | {"registry", "recipe_sections", "recipe_overrides"},
    "recipe_sections": _BASE,
    "recipe_overrides": _BASE | {"recipe_sections"},
    "training": _BASE
    | {
        "data",
        "arch",
        "objectives",
        "registry",
        "recipe",
        "recipe_sections",
        "lm",
        "tokenizer",
        "memory",
        "run",
    },
    "run": _BASE | {"recipe", "files", "arch"},
    "loading": _BASE | {"arch", "registry", "run", "lm", "exact", "tokenizer"},
    "lm": _BASE | {"data", "recipe"},
    "exact": _BASE | {"lm", "nn", "tokenizer"},
    "evaluate": _BASE | {"lm", "data"},
    "hub": _BASE | {"arch", "nn", "data", "lm"},
}
MORE = {  # single modules that may reach further
    "lm/classifier.py": {"arch"},
    "lm/decoder.py": {"arch"},
    "lm/native.py": {"arch", "nn"},
    "lm/seq2seq.py": {"arch", "nn"},
    "lm/subword.py": {"exact", "arch", "tokenizer"},
    "exact/models/trained.py": {"arch"},
    "evaluate/chunks.py": {"arch"},
    "evaluate/figures.py": {"loading", "objectives", "recipe", "run", "training"},
}


def imports_of(path: Path) -> set[str]:
    """Parts of bytelm that a module imports while it runs (type-checking imports do not count)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bytelm."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bytelm.")}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    relative = path.relative_to(ROOT / "bytelm")
    part = relative.parts[0].removesuffix(".py")
    if part in ("cli", "__init__", "__main__"):
        return
    allowed = ALLOWED[part] | {part} | MORE.get(relative.as_posix(), set())
    assert imports_of(path) <= allowed


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


def test_a_wheel_ships_the_recipes_and_an_editable_install_makes_no_folder_of_ours():
    """A force-included file below bytelm/ would be installed in editable mode too, and a folder
    site-packages/bytelm/ hides the package from every place but the repository."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    assert wheel["only-include"] == ["bytelm", "models"]
    assert wheel["sources"] == {"models": "bytelm/_recipes"}
    assert "force-include" not in build and "force-include" not in wheel
    assert build["dev-mode-exact"], "else the folders beside bytelm/ could be imported, too"


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
        assert name.startswith((recipe.model.arch, "mambabyte")), name
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
