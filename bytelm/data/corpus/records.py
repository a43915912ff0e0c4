"""Records read straight into memory as a corpus, with fields that are kept beside the text.

For objectives that need more of a record than one text: a class, a source to translate from.
Records too many for memory are built into a corpus with their columns instead
(`bytelm data build --column`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.data.corpus.format import PathLike, is_corpus
from bytelm.data.corpus.metadata import FOLDER, first_folder
from bytelm.data.corpus.reader import Corpus
from bytelm.data.corpus.storage import Storage
from bytelm.data.sources.base import PlacedSource, Reading, Source
from bytelm.data.sources.hub import HubSource
from bytelm.data.sources.open import open_source
from bytelm.data.sources.records import RecordFile
from bytelm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class RecordFields:
    """What is read from records.

    text          the field that is the document
    columns       fields that are kept beside it as texts; other data must know such columns itself
    byte_columns  fields that are kept as the bytes they are; only records have those
    """

    text: str
    columns: tuple[str, ...] = ()
    byte_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class InMemory(Storage):
    """Documents in memory, and a value per document of each column."""

    values: Mapping[str, list[Any]]

    def __reduce__(self) -> tuple[object, ...]:
        return _in_memory, (self.path, self.shards, self.lengths, dict(self.values))

    def identity(self) -> str:
        digest = hashlib.sha256(self.lengths.tobytes())
        digest.update(self.shards[0].data)
        return digest.hexdigest()

    def columns(self) -> list[str]:
        return list(self.values)

    def column(self, name: str) -> list[Any]:
        return self.values[name]


def open_records(spec: PathLike, *, fields: RecordFields) -> Corpus:
    """The documents at `spec` with their columns: records as `fields` says, anything else as
    `open_source` reads it, a built corpus as it is.

    Raises `DataError` for a record without one of the fields, and where `byte_columns` are asked of
    something that is no record.
    """
    if is_corpus(spec) and not fields.byte_columns:
        return Corpus.open(spec)
    source = open_source(spec, reading=Reading(field=fields.text, columns=fields.columns))
    if fields.byte_columns:
        _require_records(source, spec, fields=fields)
    documents = list(source)
    names = dict.fromkeys(name for document in documents for name in document.meta)
    values = {name: [document.meta.get(name) for document in documents] for name in names}
    values[FOLDER] = [first_folder(document.meta.get("path")) for document in documents]
    for name in fields.byte_columns:
        beside = open_source(spec, reading=Reading(field=name))
        values[name] = [document.data for document in beside]
    data = np.frombuffer(b"".join(document.data for document in documents), np.uint8)
    lengths = np.array([len(document.data) for document in documents], dtype=np.int64)
    return Corpus([_in_memory(Path(spec), [data], lengths, values)])


def _in_memory(path: Path, shards: list, lengths: Any, values: Mapping[str, list]) -> InMemory:
    return InMemory(path=path, root=None, shards=shards, lengths=lengths, values=values)


def _require_records(source: Source, spec: PathLike, *, fields: RecordFields) -> None:
    for leaf in source.leaves():
        inner = leaf.source if isinstance(leaf, PlacedSource) else leaf
        if not isinstance(inner, RecordFile | HubSource):
            names = " and ".join(repr(name) for name in (*fields.byte_columns, fields.text))
            raise DataError(
                f"{getattr(inner, 'path', spec)} holds no records: this objective reads JSON lines "
                f"or Parquet with the fields {names}"
            )
