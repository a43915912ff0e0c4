"""No security default is left to a library: every call that could run or fetch code is pinned.

The rule is a table over the syntax trees of the package. A new call of one of these names without
its arguments fails here, before it can fail a user.
"""

import ast
from pathlib import Path

import bytelm

PACKAGE = Path(bytelm.__file__).parent
FALSE, TRUE = False, True

# the last name of a call -> the arguments it must give, word for word
PINNED = {
    "from_pretrained": {"trust_remote_code": FALSE, "local_files_only": TRUE},
    "torch.load": {"weights_only": TRUE},
    "np.load": {"allow_pickle": FALSE},
}
# calls that are never right on what a stranger wrote
FORBIDDEN = {
    "eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "extractall",
    "extract", "os.system", "os.popen", "torch.hub.load", "marshal.loads", "shelve.open",
    "jinja2.Template", "jinja2.Environment", "joblib.load", "runpy.run_path", "input",
}  # fmt: skip
# import_module of a name that is not written out: names of ours and entry points, never a model's
IMPORTERS = {"__init__.py", "registry.py", "cli/app.py", "data/__init__.py", "hub/official.py"}


def lacking(name: str, given: dict[str, object]) -> dict[str, object]:
    """The arguments that a call of this name must give and does not."""
    for pattern, arguments in PINNED.items():
        if name == pattern or ("." not in pattern and name.endswith("." + pattern)):
            return {k: v for k, v in arguments.items() if given.get(k) is not v}
    return {}


def calls() -> list[tuple[str, str, dict[str, object], int]]:
    """(file, dotted name, its literal keyword arguments, line) of every call of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                given = {
                    keyword.arg: keyword.value.value
                    for keyword in node.keywords
                    if keyword.arg and isinstance(keyword.value, ast.Constant)
                }
                name = ast.unparse(node.func)
                if node.args and isinstance(node.args[0], ast.Constant):
                    given[""] = node.args[0].value  # a first argument that is written out
                found.append((str(path.relative_to(PACKAGE)), name, given, node.lineno))
    return found


def test_every_call_that_can_load_code_says_what_it_must_not():
    for file, name, given, line in calls():
        assert not lacking(name, given), f"{file}:{line}: {name} must say {lacking(name, given)}"
    assert lacking("transformers.AutoConfig.from_pretrained", {"trust_remote_code": True})


def test_nothing_is_evaluated_unpickled_or_extracted():
    for file, name, _, line in calls():
        last = name.rpartition(".")[2]
        forbidden = name in FORBIDDEN or (last in ("extractall", "extract") and name != last)
        assert not forbidden, f"{file}:{line}: {name} runs or writes what its input says"


def test_modules_are_imported_by_names_of_ours_only():
    found = {
        file
        for file, name, given, _ in calls()
        if name.endswith("import_module") and "" not in given
    }
    assert found <= IMPORTERS


def test_no_call_goes_through_a_shell():
    for file, name, given, line in calls():
        assert given.get("shell") is not True, f"{file}:{line}: {name}(shell=True)"


def test_pickle_and_yaml_are_not_imported():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            banned = {"pickle", "dill", "yaml", "marshal", "shelve", "joblib", "cloudpickle"}
            assert not banned & {name.partition(".")[0] for name in names}, path
