"""Parquet files: one document per row, from a text or binary column.

Text columns are read as bytes, because what is in them need not be UTF-8.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bytelm.data.sources.records import RecordFile
from bytelm.errors import DataError, unknown_name


@dataclass(frozen=True)
class ParquetSource(RecordFile):
    """The rows of a Parquet file."""

    suffixes = (".parquet", ".pq")

    def rows(self) -> Iterator[tuple[str, Any]]:
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path) as file:
                wanted = self._columns(file.schema_arrow.names)
                number = 0
                for batch in file.iter_batches(batch_size=256, columns=wanted):
                    for record in _texts_as_bytes(batch).to_pylist():
                        yield f"row {number}", record
                        number += 1
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} cannot be read as Parquet: {error}") from error

    def _columns(self, names: list[str]) -> list[str]:
        """The columns of the file to read; of "a.b" that is "a" where no column has the dot."""
        reading = self.reading
        asked = [n for n in (reading.field, reading.group, *reading.columns) if n is not None]
        wanted = sorted({name if name in names else name.split(".")[0] for name in asked})
        for name in wanted:
            if name not in names:
                raise DataError(f"{self.path}: {unknown_name('column', name, names)}. Use --field")
        return wanted


def _texts_as_bytes(batch: Any) -> Any:
    """The batch with its text columns as binary ones."""
    import pyarrow as pa

    for i, column in enumerate(batch.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            wide = pa.types.is_large_string(column.type)
            whole = batch.column(i).cast(pa.large_binary() if wide else pa.binary())
            batch = batch.set_column(i, column.name, whole)
    return batch
