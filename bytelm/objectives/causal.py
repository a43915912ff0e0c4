"""`Causal`: predict each byte, and the end of each document, from the bytes before it."""

from bytelm.data.batch import Batch
from bytelm.data.order import Integers
from bytelm.data.windows import causal_batch
from bytelm.objectives.base import ObjectiveConfig, RowSource
from bytelm.objectives.likelihood import Likelihood


class CausalConfig(ObjectiveConfig):
    """Next-byte prediction has no settings."""


class Causal(Likelihood):
    """Next-byte prediction.

    >>> from bytelm.objectives import Setup
    >>> Causal(Causal.Config(), Setup()).specials
    ('bos', 'eos')
    """

    Config = CausalConfig
    curriculum = True

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The causal batch of these samples."""
        return causal_batch(windows.rows(samples))
