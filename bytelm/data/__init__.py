"""From any bytes to batches: sources, the memory-mapped corpus, windows, objectives."""

from bytelm.data.batch import IGNORE as IGNORE
from bytelm.data.batch import Batch as Batch
from bytelm.data.corpus import Corpus as Corpus
from bytelm.data.mixture import Mixture as Mixture
from bytelm.data.objectives import OBJECTIVES as OBJECTIVES
from bytelm.data.objectives import Causal as Causal
from bytelm.data.objectives import Fim as Fim
from bytelm.data.objectives import Objective as Objective
from bytelm.data.sources import Document as Document
from bytelm.data.sources import Reading as Reading
from bytelm.data.sources import Source as Source
from bytelm.data.sources import open_source as open_source
from bytelm.data.stream import BatchStream as BatchStream
from bytelm.data.stream import DataState as DataState
from bytelm.data.windows import Windows as Windows
