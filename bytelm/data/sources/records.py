"""Records as documents: JSON lines (plain or compressed), Parquet columns, Hugging Face data sets.

A record's text is taken from one named field; strings become UTF-8 (lone surrogates, which JSON can
spell, as their three-byte form, so that nothing is lost), byte columns stay as they are. Data set
libraries are used as readers only: their shuffling and resuming are not relied on.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bytelm.data.sources.base import Document, OneFile, Reading, Source
from bytelm.data.sources.streams import BROKEN, decompressed
from bytelm.errors import DataError, MissingExtraError, unknown_name

_JSON = tuple(
    f".{kind}{packed}"
    for kind in ("jsonl", "ndjson")
    for packed in ("", ".gz", ".bz2", ".xz", ".zst")
)
_PARQUET = (".parquet", ".pq")
_MAX_LINE = 1 << 30


def is_records(name: str) -> bool:
    """Whether files of this name hold records."""
    return name.lower().endswith((*_JSON, *_PARQUET))


@dataclass(frozen=True)
class RecordSource(OneFile):
    """The records of one JSON lines or Parquet file."""

    path: Path
    reading: Reading

    def __iter__(self) -> Iterator[Document]:
        rows = _parquet_rows if self.path.name.lower().endswith(_PARQUET) else _json_rows
        for place, record in rows(self.path, self.reading):
            yield _document(record, reading=self.reading, source=str(self.path), place=place)


def _document(record: Any, *, reading: Reading, source: str, place: str) -> Document:
    where = f"{source}, {place}"
    value = _field(record, reading.field, where=where)
    group = f"{source}#{place}"
    if reading.group is not None:
        named = _field(record, reading.group, where=where)
        group = named.decode("utf-8", "replace") if isinstance(named, bytes) else str(named)
    meta = {"source": source, "path": place, "group": group}
    if isinstance(value, bytes):
        return Document(value, meta)
    if isinstance(value, str):
        return Document(value.encode("utf-8", "surrogatepass"), meta)
    raise DataError(
        f"{where}: field {reading.field!r} is {type(value).__name__}, not text or bytes. "
        "Name the field that holds the text with --field"
    )


def _field(record: Any, name: str, *, where: str) -> Any:
    """`a.b` goes into nested objects; a field whose own name has the dot wins."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    head, _, rest = name.partition(".")
    if rest and isinstance(record, Mapping) and head in record:
        return _field(record[head], rest, where=where)
    known = [str(key) for key in record] if isinstance(record, Mapping) else []
    raise DataError(f"{where}: {unknown_name('field', name, known)}. Choose one with --field")


def _json_rows(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as file, decompressed(file, path.name) as stream:
            number = 0
            while line := stream.readline(_MAX_LINE):
                number += 1
                if line.strip():
                    yield f"line {number}", _parse(line, where=f"{path}, line {number}")
    except BROKEN as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _parse(line: bytes, *, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _parquet_rows(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in (reading.field, reading.group) if name is not None]
            names = file.schema_arrow.names
            wanted = sorted(
                {column if column in names else column.split(".")[0] for column in columns}
            )
            for name in wanted:
                if name not in names:
                    raise DataError(f"{path}: {unknown_name('column', name, names)}. Use --field")
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=wanted):
                for record in _texts_as_bytes(batch).to_pylist():
                    yield f"row {number}", record
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _texts_as_bytes(batch: Any) -> Any:
    """The batch with its text columns as binary ones: what is in them need not be UTF-8."""
    import pyarrow as pa

    for i, column in enumerate(batch.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            wide = pa.types.is_large_string(column.type)
            whole = batch.column(i).cast(pa.large_binary() if wide else pa.binary())
            batch = batch.set_column(i, column.name, whole)
    return batch


@dataclass(frozen=True)
class HubSource(Source):
    """A Hugging Face data set: "hf:NAME?split=train&config=en&streaming=true", or a saved folder.

    `NAME` is what `datasets.load_dataset` takes, or a folder written by `save_to_disk`.
    """

    name: str
    reading: Reading
    split: str = "train"
    config: str | None = None
    streaming: bool = True

    @classmethod
    def parse(cls, spec: str, *, reading: Reading) -> "HubSource":
        """From the "hf:" form; `DataError` for an option it does not know."""
        name, _, query = spec.removeprefix("hf:").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        allowed = ("split", "config", "streaming")
        for key in options:
            if key not in allowed:
                raise DataError(unknown_name("option", key, allowed) + f" in {spec!r}")
        streaming = options.pop("streaming", "true")
        if streaming not in ("true", "false"):
            raise DataError(f"streaming must be true or false in {spec!r}, not {streaming!r}")
        return cls(name=name, reading=reading, streaming=streaming == "true", **options)

    def __iter__(self) -> Iterator[Document]:
        for number, record in enumerate(self._load()):
            yield _document(
                record, reading=self.reading, source=f"hf:{self.name}", place=f"row {number}"
            )

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "hf", "reading a Hugging Face data set") from error
        if (Path(self.name) / "state.json").is_file():
            return datasets.load_from_disk(self.name)
        if (Path(self.name) / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(self.name)
            if self.split not in splits:
                raise DataError(unknown_name("split", self.split, splits))
            return splits[self.split]
        try:
            return datasets.load_dataset(
                self.name, self.config, split=self.split, streaming=self.streaming
            )
        except (datasets.exceptions.DatasetNotFoundError, ConnectionError, ValueError) as error:
            raise DataError(f"the data set {self.name!r} cannot be loaded: {error}") from error
