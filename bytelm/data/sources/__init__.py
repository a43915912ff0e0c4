"""Sources: documents out of files, folders, archives, records, data sets."""

from bytelm.data.sources.base import Document as Document
from bytelm.data.sources.base import FileSource as FileSource
from bytelm.data.sources.base import ManySource as ManySource
from bytelm.data.sources.base import MemorySource as MemorySource
from bytelm.data.sources.base import OneFile as OneFile
from bytelm.data.sources.base import Reading as Reading
from bytelm.data.sources.base import Source as Source
from bytelm.data.sources.base import open_source as open_source
