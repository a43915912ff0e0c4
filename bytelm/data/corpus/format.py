"""The corpus on disk: the names of its files, its description, and how damage is found.

A built corpus is a folder: `shard-00000.bin` ... (raw uint8), `offsets.npy` (int64, where each
document starts in the concatenated stream), `documents.parquet` (where it came from) and
`corpus.json` (counts, hashes, settings). Payloads hold no separators: begin and end symbols live
outside the byte range and are added on reading.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bytelm.damage import malformed, read_object
from bytelm.errors import DataError

FORMAT = 1
DESCRIPTION = "corpus.json"
OFFSETS = "offsets.npy"
DOCUMENTS = "documents.parquet"

PathLike = str | Path


def is_corpus(path: PathLike) -> bool:
    """Whether a path is the folder of a built corpus."""
    return (Path(path) / DESCRIPTION).is_file()


def is_built(path: Path) -> bool:
    """Whether a folder is what a build made: a corpus, or the two of a split."""
    return is_corpus(path) or is_corpus(path / "train")


def shard_name(number: int) -> str:
    """The file name of a shard.

    >>> shard_name(3)
    'shard-00003.bin'
    """
    return f"shard-{number:05}.bin"


def describe(path: Path) -> dict[str, Any]:
    """The `corpus.json` of a built corpus; `DataError` if it is damaged or of another format."""
    file = path / DESCRIPTION
    description = read_object(file, "a corpus description", error=DataError)
    with malformed(file, "a corpus description", error=DataError):
        if (found := description["format"]) != FORMAT:
            raise DataError(
                f"{path} has corpus format {found!r}; this version reads {FORMAT}. Rebuild it"
            )
        entries = description["files"]
        names, sizes, hashes = ([e[k] for e in entries] for k in ("file", "bytes", "sha256"))
        counts = [description["documents"], description["bytes"], *sizes]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a count of its bytes or documents is none")
        texts = [description["fingerprint"], *names, *hashes]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name or hash in it is no text")
        for name in names:
            if name != Path(name).name:
                raise ValueError(f"it names {name!r}, which is no file of the corpus")
        if missing := {OFFSETS, DOCUMENTS} - set(names):
            raise ValueError(f"it does not name {min(missing)}")
    return description


def entry_of(path: Path) -> dict[str, object]:
    """What the description says about one file: name, size in bytes, sha256."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)}


def check_file(file: Path, entry: Mapping[str, Any], *, verify: bool) -> None:
    """Compare a file with its entry in the description: its size, and its hash if `verify`.

    Raises `DataError` if the file is missing or not as described.
    """
    if not file.is_file():
        raise DataError(f"{file} is missing; the corpus is incomplete. Rebuild it")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise DataError(f"{file} has {size} bytes instead of {entry['bytes']}. Rebuild the corpus")
    if verify and hash_file(file) != entry["sha256"]:
        raise DataError(
            f"{file} is corrupted: its sha256 is not the stored one. Rebuild the corpus"
        )


def hash_file(path: Path) -> str:
    """The sha256 of a file, read once."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
