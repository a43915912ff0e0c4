"""Documents to measure, from whatever the data layer reads and from built corpora."""

from collections.abc import Iterable
from pathlib import Path

from bytelm.data import Corpus, Reading, open_source


def read_documents(specs: Iterable[str], *, field: str = "text", raw: bool = False) -> list[bytes]:
    """The documents of every spec, in order, in memory (compressors need all of them at once).

    specs       paths and patterns as `bytelm.data.open_source` takes them, or built corpora
    field, raw  as in `bytelm.data.Reading`
    """
    reading = Reading(field=field, raw=raw)
    documents: list[bytes] = []
    for spec in specs:
        if (Path(spec) / "corpus.json").is_file():
            corpus = Corpus.open(spec)
            documents += (corpus.document(i).tobytes() for i in range(len(corpus)))
        else:
            documents += (document.data for document in open_source(spec, reading=reading))
    return documents
