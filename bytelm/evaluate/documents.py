"""Documents to measure, from whatever the data layer reads and from built corpora."""

from collections.abc import Iterable

from bytelm.data import Reading, open_source


def read_documents(specs: Iterable[str], *, field: str = "text", raw: bool = False) -> list[bytes]:
    """The documents of every spec, in order, in memory (compressors need all of them at once).

    specs       paths and patterns as `bytelm.data.open_source` takes them, or built corpora
    field, raw  as in `bytelm.data.Reading`

    Raises `DataError` for a path that does not exist or cannot be read.
    """
    source = open_source(list(specs), reading=Reading(field, raw=raw))
    return [document.data for document in source]
