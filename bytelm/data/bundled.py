"""Where the samples and tokenizers of the repository are, for recipes that name them.

A relative path starts from the current folder, wherever the recipe is. Only when nothing is there,
and something is below the repository (a checkout or an editable install), that is taken.
"""

import glob
from pathlib import Path

from bytelm.data.sources.walk import match_files
from bytelm.paths import to_path

_REPOSITORY = Path(__file__).resolve().parents[2]


def find_data(path: str) -> str:
    """`path` as given, or below the repository when only that exists; patterns count by a match.

    >>> Path(find_data("data/prose/heldout.txt")).name, find_data("no/such/file")
    ('heldout.txt', 'no/such/file')
    """
    bundled, here = _REPOSITORY / path, to_path(path)
    if not here.is_absolute() and not has_match(here) and has_match(bundled):
        return str(bundled)
    return path


def has_match(path: Path) -> bool:
    """Whether a path exists, or a glob pattern has a match."""
    return path.exists() or (glob.has_magic(str(path)) and bool(match_files(path).files))
