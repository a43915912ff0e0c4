"""Parquet files: one document per row, from a text or binary column.

Text is read as the bytes it is, however it is encoded or nested, because nothing ensures that it is
UTF-8. Page checksums are verified where a file has them, and the counts of rows, which stand in
several places, must agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bytelm.data.sources.base import Reading
from bytelm.data.sources.limits import Budget
from bytelm.data.sources.look import Look
from bytelm.data.sources.records import RecordFile
from bytelm.data.sources.streams import nearly
from bytelm.errors import DataError, unknown_name

_MAGICS = (b"PAR1", b"PARE")  # PARE: with an encrypted footer


@dataclass(frozen=True)
class ParquetSource(RecordFile):
    """The rows of a Parquet file."""

    suffixes = (".parquet", ".pq")

    @classmethod
    def fits(cls, look: Look, *, reading: Reading) -> bool:
        ends = (look.head, look.tail[-4:])
        return not look.head or any(nearly(end, magic) for end in ends for magic in _MAGICS)

    def rows(self, budget: Budget) -> Iterator[tuple[str, Any]]:
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                expected = _count_of_rows(file.metadata)
                wanted = self._columns(file.schema_arrow.names)
                number = 0
                for batch in file.iter_batches(batch_size=256, columns=wanted):
                    budget.spend(batch.nbytes)
                    for record in _texts_as_bytes(batch):
                        yield f"row {number}", record
                        number += 1
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path} cannot be read as Parquet: {error}") from error
        if number != expected:
            raise DataError(
                f"{self.path} tells of {expected} rows, and has {number}: it is damaged"
            )

    def _columns(self, names: list[str]) -> list[str]:
        """The columns of the file to read; of "a.b" that is "a" where no column has the dot."""
        wanted = set()
        for name, role in self.reading.names():
            column = name if name in names else name.split(".")[0]
            if column not in names:
                unknown = unknown_name("column", column, names)
                advice = self.reading.spelling.choice(role, name)
                raise DataError(f"{self.path}: {unknown}; {advice}")
            wanted.add(column)
        return sorted(wanted)


def _count_of_rows(metadata: Any) -> int:
    """The rows of the file by its footer; `DataError` if those of its groups are not as many."""
    groups = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if groups != metadata.num_rows:
        raise DataError(
            f"it tells of {metadata.num_rows} rows, and of {groups} in its groups: it is damaged"
        )
    return metadata.num_rows


def _texts_as_bytes(batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch, with texts as bytes."""
    columns = [column.cast(_binary(column.type)).to_pylist() for column in batch.columns]
    names = batch.schema.names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _binary(kind: Any) -> Any:
    """The type with every text in it as bytes, and without dictionaries."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _binary(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_binary(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_binary(kind.key_type), _binary(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_binary(kind.value_type)), kind.list_size)
    for is_list, make in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
    ):
        if is_list(kind):
            return make(kind.value_field.with_type(_binary(kind.value_type)))
    return kind
