"""Records read straight into memory as a corpus, with fields that are kept beside the text.

For objectives that need more of a record than one text: a class, a source to translate from.
Records too many for memory are built into a corpus with their columns instead
(`bytelm data build --column`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from bytelm.data.corpus.format import PathLike, is_corpus
from bytelm.data.corpus.in_memory import read_into_memory
from bytelm.data.corpus.reader import Corpus
from bytelm.data.sources.base import Document, PlacedSource, Reading, Source
from bytelm.data.sources.hub import HubSource
from bytelm.data.sources.notes import Notes
from bytelm.data.sources.open import open_source
from bytelm.data.sources.records import RecordFile
from bytelm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class RecordFields:
    """What is read from records.

    text          the field that is the document
    columns       fields that are kept beside it as texts; other data must know such columns itself
    byte_columns  fields that are kept as the bytes they are; only records have those
    settings      {field: the setting that names it}, for messages
    """

    text: str
    columns: tuple[str, ...] = ()
    byte_columns: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def open_records(spec: PathLike, *, fields: RecordFields, reading: Reading | None = None) -> Corpus:
    """The documents at `spec` with their columns: records as `fields` says, anything else as
    `open_source` reads it, a built corpus as it is. What else `reading` says holds, too.

    Raises `DataError` for a record without one of the fields, and where `byte_columns` are asked of
    something that is no record.
    """
    if is_corpus(spec) and not fields.byte_columns:
        return Corpus.open(spec)
    reading = reading or Reading()
    reading = replace(
        reading,
        field=fields.text,
        columns=fields.columns,
        spelling=replace(reading.spelling, fields=fields.settings),
    )
    source = open_source(spec, reading=reading)
    if fields.byte_columns:
        _require_records(source, spec, fields=fields)
    more: dict[str, list[bytes]] = {name: [] for name in fields.byte_columns}
    return Corpus([read_into_memory(spec, _with_columns(source, spec, more, reading), more=more)])


def _with_columns(
    source: Source, spec: PathLike, more: Mapping[str, list[bytes]], reading: Reading
) -> Iterator[Document]:
    """The documents of `source`; the fields of the same records are added to the lists in `more`.

    Records are told by their places, not counted: one whose text is null is left out.
    """
    beside: dict[str, dict[tuple[str, str], bytes]] = {}
    for name in more:
        again = replace(reading, field=name, columns=(), notes=Notes())  # `source` notes the same
        beside[name] = {_place(d): d.data for d in open_source(spec, reading=again)}
    for document in source:
        place = _place(document)
        if missing := [name for name in more if place not in beside[name]]:
            reading.problem(
                "damaged record", ", ".join(place), f"the field {missing[0]!r} is null or damaged"
            )
            continue
        for name, values in more.items():
            values.append(beside[name][place])
        yield document


def _place(document: Document) -> tuple[str, str]:
    return str(document.meta["source"]), str(document.meta["path"])


def _require_records(source: Source, spec: PathLike, *, fields: RecordFields) -> None:
    for leaf in source.leaves():
        inner = leaf.source if isinstance(leaf, PlacedSource) else leaf
        if not isinstance(inner, RecordFile | HubSource):
            names = " and ".join(repr(name) for name in (*fields.byte_columns, fields.text))
            raise DataError(
                f"{getattr(inner, 'path', spec)} holds no records: this objective reads JSON lines "
                f"or Parquet with the fields {names}"
            )
