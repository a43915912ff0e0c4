"""Where the samples and tokenizers of the repository are, for recipes that name them.

A relative path starts from the current folder, wherever the recipe is. Only when nothing is there,
and something is below the repository (a checkout or an editable install) or in the wheel, that is
taken.
"""

import glob
from pathlib import Path

from bytelm.data.sources.walk import match_files
from bytelm.paths import to_path

_PACKAGE = Path(__file__).resolve().parents[1]
_WHEEL = _PACKAGE / "_bundled"  # where pyproject.toml puts data/ and tokenizers/


def bundled_folders() -> list[Path]:
    """The folders that hold data/ and tokenizers/: of the repository, of the wheel."""
    repository = _PACKAGE.parent
    return [*([repository] if (repository / "pyproject.toml").is_file() else []), _WHEEL]


def find_data(path: str) -> str:
    """`path` as given, or that which is bundled when only it exists; patterns count by a match.

    >>> Path(find_data("data/prose/heldout.txt")).name, find_data("no/such/file")
    ('heldout.txt', 'no/such/file')
    """
    here = to_path(path)
    if here.is_absolute() or has_match(here):
        return path
    found = (str(folder / path) for folder in bundled_folders() if has_match(folder / path))
    return next(found, path)


def has_match(path: Path) -> bool:
    """Whether a path exists, or a glob pattern has a match."""
    return path.exists() or (glob.has_magic(str(path)) and bool(match_files(path).files))
