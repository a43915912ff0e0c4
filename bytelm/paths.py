"""Paths as text. A file name is any bytes; recipes, JSON and terminals hold UTF-8 only.

A path that is not UTF-8 is spelt "file:" and its bytes, with %XX for those that are no plain ASCII
(as in a URI); whatever reads data takes that spelling.
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

_FILE = "file:"


def to_path(text: str | Path) -> Path:
    """The path that a text names: itself, or the one behind "file:".

    >>> to_path("a b.txt").name, os.fsencode(to_path("file:a%FF.txt"))
    ('a b.txt', b'a\\xff.txt')
    """
    path = Path(text)
    if isinstance(text, str) and text.startswith(_FILE) and not path.exists():
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_FILE))))
    return path


def to_text(path: str | Path) -> str:
    """The path as text that any file can hold: itself, or "file:..." if it is not UTF-8.

    >>> to_text("a b.txt"), to_text(os.fsdecode(b"a\\xff.txt"))
    ('a b.txt', 'file:a%FF.txt')
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return _FILE + quote(os.fsencode(path))
    return str(path)
