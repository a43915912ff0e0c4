"""Where the samples and tokenizers of the repository are, for recipes that name them.

A relative path starts from the current folder, wherever the recipe is. Only when nothing is there,
and something is below the repository (a checkout or an editable install), that is taken.
"""

from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]


def find_data(path: str) -> str:
    """`path` as given, or below the repository when only that exists; patterns count by a match.

    >>> Path(find_data("data/prose/heldout.txt")).name, find_data("no/such/file")
    ('heldout.txt', 'no/such/file')
    """
    bundled, here = _REPOSITORY / path, Path(path)
    if not here.is_absolute() and not has_match(here) and has_match(bundled):
        return str(bundled)
    return path


def has_match(path: Path) -> bool:
    """Whether a path exists, or a glob pattern in its last part has a match."""
    parent = Path(*path.parts[:-1])
    return path.exists() or (parent.is_dir() and any(parent.glob(path.name)))
