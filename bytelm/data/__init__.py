"""From any bytes to batches: sources, the memory-mapped corpus, windows, objectives."""

from bytelm.data.batch import IGNORE as IGNORE
from bytelm.data.batch import Batch as Batch
