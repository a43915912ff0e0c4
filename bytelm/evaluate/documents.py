"""Documents to measure, from whatever the data layer reads and from built corpora."""

from collections.abc import Iterable

from bytelm.data import Reading, open_source


def read_documents(specs: Iterable[str], *, reading: Reading | None = None) -> list[bytes]:
    """The documents of every spec, in order, in memory (compressors need all of them at once).

    specs    paths and patterns as `bytelm.data.open_source` takes them, or built corpora
    reading  how; what is skipped is in its `notes`

    Raises `DataError` for a path that does not exist or cannot be read.
    """
    return [document.data for document in open_source(list(specs), reading=reading)]
