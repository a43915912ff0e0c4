"""The corpus helper of the data tests."""

from tests.data.conftest import corpus_of as corpus_of
