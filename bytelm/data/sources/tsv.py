"""Tab-separated records (.tsv), plain or compressed: a line of names, then one record per line.

Cells are bytes as they stand: no quotes, no escapes, so no cell holds a tab or the end of a line. A
file counts as records only if its first line names the field of the text; any other .tsv is a
document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bytelm.data.sources.base import Reading
from bytelm.data.sources.json_lines import lines_of, opened_lines
from bytelm.data.sources.limits import Budget, Limits
from bytelm.data.sources.look import Look
from bytelm.data.sources.records import RecordFile
from bytelm.data.sources.streams import SUFFIXES
from bytelm.errors import DataError

_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class TsvSource(RecordFile):
    """The records of a tab-separated file."""

    suffixes = tuple(f".tsv{packed}" for packed in ("", *SUFFIXES))

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        if not super().fits(look, reading=reading):
            return False
        with look.open() as file:
            try:
                lines = lines_of(file, look.name, Budget(Limits(), None, look.name))
                header = lines.readline(_LONGEST_HEADER)
            except (DataError, OSError):
                return False  # whatever else reads it says what is wrong
        return reading.field in _names(header)

    def rows(self, budget: Budget) -> Iterator[tuple[str, Any]]:
        with opened_lines(self.path, budget) as lines:
            names = _names(lines.readline(_LONGEST_HEADER))
            for number, line in enumerate(lines, start=2):
                if line.strip(b"\r\n"):
                    yield f"line {number}", _record(names, line)


def _names(header: bytes) -> list[str]:
    return header.rstrip(b"\r\n").decode("utf-8", "replace").split("\t")


def _record(names: list[str], line: bytes) -> dict[str, bytes] | DataError:
    cells = line.rstrip(b"\r\n").split(b"\t")
    if len(cells) != len(names):
        return DataError(f"{len(cells)} cells where the first line names {len(names)}")
    return dict(zip(names, cells, strict=True))
