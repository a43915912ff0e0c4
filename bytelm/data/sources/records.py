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
    def rows(self) -> Iterator[tuple[str, Any]]:
        """(place inside the file, such as "line 3"; record) of each record, in order."""

    def __iter__(self) -> Iterator[Document]:
        for place, record in self.rows():
            yield document_of(record, reading=self.reading, source=str(self.path), place=place)


def document_of(record: Any, *, reading: Reading, source: str, place: str) -> Document:
    """The document in one record at `place` of `source`, with its group and columns.

    Raises `DataError` with the place for a record without the field, or with no text in it.
    """
    where = f"{source}, {place}"
    value = _field(record, reading.field, where=where)
    group = f"{source}#{place}"
    if reading.group is not None:
        group = _as_text(_field(record, reading.group, where=where))
    kept = {name: _as_text(_field(record, name, where=where)) for name in reading.columns}
    meta = {"source": source, "path": place, "group": group, **kept}
    if isinstance(value, bytes):
        return Document(value, meta)
    if isinstance(value, str):
        return Document(value.encode("utf-8", "surrogatepass"), meta)
    raise DataError(
        f"{where}: field {reading.field!r} is {type(value).__name__}, not text or bytes. "
        "Name the field that holds the text with --field"
    )


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _field(record: Any, name: str, *, where: str) -> Any:
    """`a.b` goes into nested objects; a field whose own name has the dot wins."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    head, _, rest = name.partition(".")
    if rest and isinstance(record, Mapping) and head in record:
        return _field(record[head], rest, where=where)
    known = [str(key) for key in record] if isinstance(record, Mapping) else []
    raise DataError(f"{where}: {unknown_name('field', name, known)}. Choose one with --field")
