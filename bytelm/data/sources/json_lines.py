"""JSON lines (.jsonl, .ndjson), plain or compressed: one document per line that is not blank.

Data sets are often called .json or .json.gz all the same. Such a file counts as JSON lines if its
first two lines are objects that have the field of the text; a file that is one JSON value, however
it is laid out, never is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from bytelm.data.sources.base import Reading
from bytelm.data.sources.limits import Budget, LimitError, Limits
from bytelm.data.sources.look import HEAD, Look
from bytelm.data.sources.records import RecordFile, has_field
from bytelm.data.sources.streams import SUFFIXES, compression_of, decompressed
from bytelm.errors import DataError

_JSON = tuple(f".json{packed}" for packed in ("", *SUFFIXES))
_LONGEST_LINE = 64 << 20  # bytes that are looked at to tell what a .json file is


@dataclass(frozen=True)
class JsonLinesSource(RecordFile):
    """The records of a JSON lines file."""

    suffixes = tuple(
        f".{kind}{packed}" for kind in ("jsonl", "ndjson", "json") for packed in ("", *SUFFIXES)
    )

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        if not look.name.lower().endswith(_JSON):
            return super().fits(look, reading=reading)
        records = _first_objects(look)
        if _has_field(records, reading.field):
            return True
        if len(records) == 2:
            advice = reading.spelling.choice("field", reading.field)
            why = f"JSON lines without a field {reading.field!r} ({advice})"
            reading.note("misnamed file", look.place, why=why)
        return False

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        return cls(Path(spec), reading)

    def rows(self, budget: Budget) -> Iterator[tuple[str, Any]]:
        with opened_lines(self.path, budget) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"line {number}", _parse(line)


def holds_records(look: Look, field: str) -> bool:
    """Whether the first two lines that are not blank are objects, and one has the field."""
    return _has_field(_first_objects(look), field)


def _has_field(first: list[Any], field: str) -> bool:
    return len(first) == 2 and any(has_field(record, field) for record in first)


@contextmanager
def opened_lines(path: Path, budget: Budget) -> Iterator[IO[bytes]]:
    """The lines of a file, unpacked where it is compressed; errors name the file."""
    with path.open("rb") as file:
        try:
            yield lines_of(file, path.name, budget)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        except LimitError:
            raise
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def lines_of(file: IO[bytes], name: str, budget: Budget) -> IO[bytes]:
    """The lines of a file called `name`, unpacked where it is compressed."""
    head = file.read(HEAD)
    if not head and name.lower().endswith(SUFFIXES):
        raise DataError("the file is empty, which no compressed file is")
    compression = compression_of(head, name)
    file.seek(0)
    return file if compression is None else decompressed(file, compression, budget)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"not JSON: {error}")


def _first_objects(look: Look) -> list[Any]:
    """The objects in the first two lines that are not blank, as far as they are objects."""
    found: list[Any] = []
    with look.open() as file:
        try:
            lines = lines_of(file, look.name, Budget(Limits(), None, look.name))
            while len(found) < 2 and (line := lines.readline(_LONGEST_LINE)):
                if line.strip():
                    record = _parse(line)
                    if not isinstance(record, dict):
                        break
                    found.append(record)
        except (DataError, OSError):
            return []  # whatever else reads it says what is wrong
    return found
