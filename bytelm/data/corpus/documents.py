"""The documents of built corpora, with the metadata they were stored with."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from bytelm.data.corpus.format import DESCRIPTION, OFFSETS, describe
from bytelm.data.corpus.metadata import read_rows
from bytelm.data.corpus.reader import Corpus
from bytelm.data.sources.base import Document, Reading, Source
from bytelm.data.sources.document import BLOCK, LazyDocument


@dataclass(frozen=True)
class CorpusSource(Source):
    """The documents of the corpus in the folder `path`; a source like any other.

    They keep the metadata they were stored with. Whatever `Reading` says is not asked: it was
    applied when the corpus was built.
    """

    path: Path

    markers = (DESCRIPTION, OFFSETS)

    @classmethod
    def open(cls, spec: str | Path, *, reading: Reading) -> Self:
        return cls(Path(spec))

    def __iter__(self) -> Iterator[Document]:
        corpus = Corpus.open(self.path)
        for i, row in enumerate(read_rows(self.path)):
            start, stop = (int(at) for at in corpus.offsets[i : i + 2])
            if stop - start <= BLOCK:
                yield Document(corpus.read(start, stop).tobytes(), row)
            else:
                yield LazyDocument(partial(_blocks, corpus, start, stop), row)

    def stamp(self) -> str:
        return f"{self.path} {describe(self.path)['fingerprint']}"

    def least_bytes(self) -> int:
        return int(describe(self.path)["bytes"])


def _blocks(corpus: Corpus, start: int, stop: int) -> Iterator[bytes]:
    for begin in range(start, stop, BLOCK):
        yield corpus.read(begin, min(begin + BLOCK, stop)).tobytes()
