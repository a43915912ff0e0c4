"""From any bytes to batches: sources, the corpus, windows, batches.

Names are fetched on first use: whoever only reads sources, as training a tokenizer does, need not
wait for torch, which batches are made of.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# public name -> module that defines it
_PUBLIC = {
    "IGNORE": "batch",
    "Batch": "batch",
    "Corpus": "corpus",
    "Mixture": "mixture",
    "Document": "sources",
    "Reading": "sources",
    "Source": "sources",
    "open_source": "sources",
    "BatchStream": "stream",
    "DataState": "stream",
    "Windows": "windows",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from bytelm.data.batch import IGNORE as IGNORE
    from bytelm.data.batch import Batch as Batch
    from bytelm.data.corpus import Corpus as Corpus
    from bytelm.data.mixture import Mixture as Mixture
    from bytelm.data.sources import Document as Document
    from bytelm.data.sources import Reading as Reading
    from bytelm.data.sources import Source as Source
    from bytelm.data.sources import open_source as open_source
    from bytelm.data.stream import BatchStream as BatchStream
    from bytelm.data.stream import DataState as DataState
    from bytelm.data.windows import Windows as Windows


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bytelm.data' has no attribute {name!r}; it has {__all__}")
    value = getattr(import_module(f"bytelm.data.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
