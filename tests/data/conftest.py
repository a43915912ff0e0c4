"""Helpers shared by the data tests."""

from pathlib import Path

import pytest

from bytelm.data import Corpus


@pytest.fixture
def corpus_of(tmp_path):
    """Make a corpus with one plain file for each byte string."""

    def make(documents: list[bytes]) -> Corpus:
        paths = []
        for i, data in enumerate(documents):
            path = Path(tmp_path) / f"{i:05}.bin"
            path.write_bytes(data)
            paths.append(path)
        return Corpus.open(paths)

    return make
