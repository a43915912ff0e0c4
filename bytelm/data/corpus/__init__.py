"""The corpus: its format, its reader, and how it is built."""

from bytelm.data.corpus.reader import Corpus as Corpus
