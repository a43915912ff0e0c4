"""Who imports whom among the files of bytelm, read from their source.

Imports inside functions count, those for type checkers alone do not. Importing a module also runs
the `__init__` of its package, so whoever is outside that package imports it as well; and a name
that an `__init__` fetches on first use is imported from where it is defined.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

Files = Mapping[str, Path]  # module -> its file
Graph = Mapping[str, set[str]]  # module -> the modules it imports


def modules(package: Path = ROOT / "bytelm") -> dict[str, Path]:
    """Everything in a package."""
    return {_name(file, package.parent): file for file in sorted(package.rglob("*.py"))}


def import_graph(files: Files) -> dict[str, set[str]]:
    """The graph over these modules."""
    return {name: set(_imported(name, file, files)) - {name} for name, file in files.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import one another in a circle, directly or through others.

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})
    [['b', 'c']]
    """
    reach = {name: _reachable(graph, name) for name in graph}
    found = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }
    return sorted(map(list, found))


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph[name]
    return found


def _imported(name: str, file: Path, files: Files) -> Iterator[str]:
    for module, attribute in _imports(file):
        target = f"{module}.{attribute}" if f"{module}.{attribute}" in files else module
        if target not in files:
            continue
        yield target
        if target == module and files[module].name == "__init__.py":
            yield from (
                source
                for source, exported in _imports(files[module], typing_only=True)
                if exported == attribute and source in files
            )
        package = target.rpartition(".")[0]
        while package in files and not f"{name}.".startswith(f"{package}."):
            yield package
            package = package.rpartition(".")[0]


def _imports(file: Path, *, typing_only: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name) of each import: those that happen, or those for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if (id(node) in hidden) != typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def _name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
