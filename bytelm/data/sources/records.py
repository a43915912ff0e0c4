"""What every source of records shares: one named field of a record becomes a document.

Strings become UTF-8 (lone surrogates, which JSON can spell, as their three-byte form, so that
nothing is lost), byte columns stay as they are.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bytelm.data.sources.base import Document, OneFile, Reading
from bytelm.data.sources.limits import Budget
from bytelm.errors import DataError, unknown_name


@dataclass(frozen=True)
class RecordFile(OneFile):
    """Base of the sources that read one file of records."""

    path: Path
    reading: Reading

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        return cls(Path(spec), reading)

    @abstractmethod
    def rows(self, budget: Budget) -> Iterator[tuple[str, Any | DataError]]:
        """(place inside the file, such as "line 3"; record, or why it cannot be read) of each
        record, in order. What is unpacked is counted against `budget`."""

    def __iter__(self) -> Iterator[Document]:
        name = str(self.path)
        budget = self.reading.budget(name, self.path.stat().st_size)
        try:
            for place, record in self.rows(budget):
                found = read_record(record, reading=self.reading, source=name, place=place)
                if found is not None:
                    yield found
        except (DataError, OSError) as error:
            self.reading.problem("damaged file", name, error)


def read_record(
    record: Any | DataError, *, reading: Reading, source: str, place: str
) -> Document | None:
    """The document in one record at `place` of `source`, with its group and columns.

    None for a record that is left out and noted: one whose text is null, and under
    `Reading.skip_errors` one that has no text or cannot be read (then `record` is the error).
    `DataError` with the place for such a one otherwise.
    """
    where = f"{source}, {place}"
    try:
        if isinstance(record, DataError):
            raise record
        found = {name: _chosen(record, name, role, reading) for name, role in reading.names()}
        value = found[reading.field]
        group = None if reading.group is None else _as_text(found[reading.group])
        kept = {name: _as_text(found[name]) for name in reading.columns}
        if value is not None and not isinstance(value, bytes | str):
            raise DataError(
                f"field {reading.field!r} is {type(value).__name__}, not text or bytes: "
                + reading.spelling.choice("field", reading.field)
            )
    except DataError as error:
        reading.problem("damaged record", where, error)
        return None
    if value is None:
        reading.note("null record", where, why=f"field {reading.field!r} is null")
        return None
    meta = {"source": source, "path": place, "group": group or f"{source}#{place}", **kept}
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return Document(data, meta)


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _chosen(record: Any, name: str, role: str, reading: Reading) -> Any:
    """The field of a record that the setting `role` names."""
    try:
        return _field(record, name)
    except DataError as error:
        raise DataError(f"{error}; {reading.spelling.choice(role, name)}") from None


def _field(record: Any, name: str) -> Any:
    """`a.b` goes into nested objects; a field whose own name has the dot wins."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    head, _, rest = name.partition(".")
    if rest and isinstance(record, Mapping) and head in record:
        return _field(record[head], rest)
    known = [str(key) for key in record] if isinstance(record, Mapping) else []
    raise DataError(unknown_name("field", name, known))


def has_field(record: Any, name: str) -> bool:
    """Whether a record has a field, nested ones spelt "a.b".

    >>> has_field({"a": {"b": 1}}, "a.b"), has_field({"a": {"b": 1}}, "b")
    (True, False)
    """
    try:
        _field(record, name)
    except DataError:
        return False
    return True
