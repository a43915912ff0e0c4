"""The corpus: its format on disk, its reader, and how it is built.

format.py and metadata.py say what lies on disk, storage.py and reader.py read it, shards.py,
journal.py, build_folder.py and build.py make it. Reading never imports what builds.
"""

from bytelm.data.corpus.format import PathLike as PathLike
from bytelm.data.corpus.reader import Corpus as Corpus
