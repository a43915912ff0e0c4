"""Sources: documents out of files, folders, archives, record files and data sets.

`base.py` holds what a source is, `open.py` finds the one that reads a path, and every other file
reads one format. A new format is one such file and one line in `bytelm.registry.SOURCES`.
"""

from bytelm.data.sources.base import Document as Document
from bytelm.data.sources.base import FileSource as FileSource
from bytelm.data.sources.base import ManySource as ManySource
from bytelm.data.sources.base import MemorySource as MemorySource
from bytelm.data.sources.base import OneFile as OneFile
from bytelm.data.sources.base import Reading as Reading
from bytelm.data.sources.base import Source as Source
from bytelm.data.sources.limits import Limits as Limits
from bytelm.data.sources.notes import Notes as Notes
from bytelm.data.sources.open import open_source as open_source
