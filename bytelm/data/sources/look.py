"""`Look`: a file, or a member of an archive, as far as one must look to tell what it is.

The name says whether something is to be opened (report.docx is a zip file, too, and is a document
as it stands); the content says how, because names are wrong often enough.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

HEAD = 1024  # bytes; a tar header needs 512
TAIL = (1 << 16) + 21  # bytes; the end record of a zip file with the longest comment


@dataclass(frozen=True, eq=False)
class Look:
    """The `name` of a file, its bytes behind `open`, and the `place` that messages call it.

    `cut` says whether the file may be cut short; a member of an archive is as it was stored.
    """

    name: str
    open: Callable[[], IO[bytes]]
    place: str
    cut: bool

    @classmethod
    def of_path(cls, path: Path) -> "Look":
        """A file on the disk."""
        return cls(path.name, lambda: path.open("rb"), str(path), cut=True)

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> "Look":
        """A file in memory.

        >>> Look.of_bytes("a/b.gz", b"text").head
        b'text'
        """
        return cls(name, lambda: io.BytesIO(data), name, cut=False)

    @cached_property
    def head(self) -> bytes:
        """The first `HEAD` bytes."""
        with self.open() as stream:
            return stream.read(HEAD)

    @cached_property
    def tail(self) -> bytes:
        """The last `TAIL` bytes."""
        with self.open() as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - TAIL))
            return stream.read(TAIL)
