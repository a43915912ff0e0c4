"""`documents.parquet`: where each document of a corpus came from, and the columns kept with it.

Standard columns are the texts source, path, group, media and sha256 and the numbers offset, address
and length; the columns that `Reading.columns` named follow the texts. "folder" is not stored: it is
the first folder of `path`, which is how labelled collections are laid out (one folder per class).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bytelm.damage import malformed
from bytelm.data.corpus.format import DOCUMENTS, PathLike
from bytelm.errors import DataError

Row = dict[str, Any]

FOLDER = "folder"
_TEXT = ("source", "path", "group", "media", "sha256")
_ROWS_HELD = 10_000  # rows of documents.parquet that are in memory before they go to disk


def row_of(
    meta: Mapping[str, Any], *, length: int, sha256: str, columns: Sequence[str] = ()
) -> Row:
    """What is stored about a document of `length` bytes: texts (or None) and numbers.

    Parquet holds UTF-8 only; file names need not be, and have their other bytes spelt \\udcNN.
    """
    row = {name: _utf8(meta.get(name)) for name in (*_TEXT, *columns)}
    numbers = {"offset": meta.get("offset"), "address": meta.get("address"), "length": length}
    return {**row, **numbers, "sha256": sha256}


def _utf8(text: object) -> str | None:
    return None if text is None else str(text).encode("utf-8", "backslashreplace").decode("utf-8")


class TableWriter:
    """documents.parquet of one corpus, written in groups of rows as they come."""

    def __init__(self, folder: Path, *, columns: Sequence[str] = ()):
        import pyarrow as pa
        from pyarrow import parquet

        text = [(name, pa.string()) for name in (*_TEXT, *columns)]
        numbers = [("offset", pa.int64()), ("address", pa.uint64()), ("length", pa.int64())]
        self._schema = pa.schema([*text, *numbers])
        # opened here: pyarrow takes no names that are not UTF-8
        self._file = open(folder / DOCUMENTS, "wb")
        self._writer = parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Append a row of `row_of`."""
        self._rows.append(row)
        if len(self._rows) == _ROWS_HELD:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def read_rows(path: PathLike) -> Iterator[Row]:
    """The stored metadata of each document of a built corpus, in order."""
    from pyarrow import parquet

    file = Path(path) / DOCUMENTS
    with _told(file), open(file, "rb") as stream, parquet.ParquetFile(stream) as table:
        for batch in table.iter_batches():
            yield from batch.to_pylist()


def stored_columns(path: Path) -> list[str]:
    """The names `read_column` knows for a built corpus."""
    from pyarrow import parquet

    with _told(path / DOCUMENTS), open(path / DOCUMENTS, "rb") as file:
        return [*parquet.read_schema(file).names, FOLDER]


def read_column(path: Path, name: str) -> list[Any]:
    """One column of a built corpus, a value (or None) per document."""
    from pyarrow import parquet

    stored = "path" if name == FOLDER else name
    with _told(path / DOCUMENTS), open(path / DOCUMENTS, "rb") as file:
        values = parquet.read_table(file, columns=[stored]).column(stored).to_pylist()
    return [first_folder(value) for value in values] if name == FOLDER else values


def _told(file: Path) -> AbstractContextManager[None]:
    return malformed(file, "the table of a corpus's documents", error=DataError)


def first_folder(path: str | None) -> str | None:
    """The first folder in the path of a document, None if there is none.

    >>> [first_folder(path) for path in ("elf/a/b.so", "a.zip!elf/b.so", "b.so", None)]
    ['elf', 'elf', None, None]
    """
    for place in (path or "").split("!"):
        folder, slash, _ = place.removeprefix("./").partition("/")
        if slash and folder:
            return folder
    return None
