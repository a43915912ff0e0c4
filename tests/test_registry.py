"""Registries find our own parts and other packages', and say what is wrong with a name."""

import sys

import pytest

from bytelm.errors import BytelmError
from bytelm.registry import ARCHITECTURES, LOADERS, OBJECTIVES, SOURCES, Registry


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package that holds entry points of the group `bytelm.things`."""
    (tmp_path / "thing_maker.py").write_text("def make():\n    return 'made'\n")
    info = tmp_path / "thing_maker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing-maker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bytelm.things]\n"
        "zebra = thing_maker:make\n"
        "ant = thing_maker:make\n"
        "ours = thing_maker:make\n"
        "gone = no_such_module_of_ours:make\n"
        "empty = thing_maker:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("thing", "bytelm.things", {"ours": "bytelm.errors:DataError"})
    sys.modules.pop("thing_maker", None)


def test_entry_points_join_after_our_own_and_never_replace_them(installed):
    assert installed.names() == ["ours", "ant", "empty", "gone", "zebra"]
    assert installed.get("zebra")() == "made"
    assert installed.get("ours").__name__ == "DataError"


def test_an_unknown_name_comes_with_the_nearest_match(installed):
    with pytest.raises(BytelmError, match="unknown thing 'zebr'; did you mean 'zebra'"):
        installed.get("zebr")


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_a_broken_entry_point_is_named_with_its_target(installed, name):
    with pytest.raises(BytelmError, match=f"the thing '{name}' is registered as .*:"):
        installed.get(name)


def test_names_import_nothing(installed):
    installed.names()
    assert "thing_maker" not in sys.modules


@pytest.mark.parametrize("registry", [ARCHITECTURES, OBJECTIVES, SOURCES, LOADERS])
def test_everything_we_register_exists(registry):
    assert all(part is not None for _, part in registry.items())
