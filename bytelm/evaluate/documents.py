"""Documents to measure: the files that are named, and those below the folders that are."""

from collections.abc import Iterable
from pathlib import Path

from bytelm.errors import DataError


def read_documents(paths: Iterable[Path]) -> list[bytes]:
    """Each file is one document, as it stands; a folder gives the files below it, by name, without
    hidden ones."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = (p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file())
            found = [path / p for p in below if not any(part.startswith(".") for part in p.parts)]
            if not found:
                raise DataError(f"the folder {path} holds no files")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"there is no file or folder {path}")
    return [file.read_bytes() for file in files]
