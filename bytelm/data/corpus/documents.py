"""The documents of built corpora, with the metadata they were stored with."""

from collections.abc import Iterable, Iterator

from bytelm.data.corpus.format import PathLike, is_corpus
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.corpus.reader import Corpus
from bytelm.data.sources import Document, Reading, open_source


def open_documents(paths: Iterable[str], *, reading: Reading) -> Iterator[Document]:
    """The documents of paths that may be built corpora or anything `open_source` takes."""
    for path in paths:
        if is_corpus(path):
            yield from stored_documents(path)
        else:
            yield from open_source(path, reading=reading)


def stored_documents(path: PathLike) -> Iterator[Document]:
    """The documents of a built corpus with the metadata they were stored with."""
    corpus = Corpus.open(path)
    for i, row in enumerate(read_rows(path)):
        yield Document(corpus.document(i).tobytes(), row)
