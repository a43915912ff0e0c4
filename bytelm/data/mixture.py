"""`Mixture`: several row sources in fixed proportions, without counters or random draws.

Weights are turned into whole quotas out of 4096 slots by the largest remainder; a cycle of 4096
slots interleaves the sources as evenly as their quotas allow. Which source a sample comes from,
and how many it has given before, are then closed formulas of the sample number, so a mixture has
the same one-number state as a single corpus. A source that runs out begins its next epoch, with
that epoch's own order.
"""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np

from bytelm.data.corpus import Corpus
from bytelm.data.order import Integers
from bytelm.data.windows import Rows, Windows
from bytelm.errors import DataError

SLOTS = 4096


class Mixture:
    """`weights[i]` of all rows come from `sources[i]`, to within a row at any time.

    >>> quotas([2.0, 1.0]).tolist()
    [2731, 1365]
    """

    def __init__(self, sources: Sequence[Windows], *, weights: Sequence[float]):
        if len(sources) != len(weights) or not sources:
            raise DataError(
                f"{len(sources)} sources and {len(weights)} weights; need equal numbers"
            )
        if len({source.length for source in sources}) != 1:
            raise DataError(f"sources differ in window length: {[s.length for s in sources]}")
        self.sources = list(sources)
        self.length, self.seed = sources[0].length, sources[0].seed
        self._quotas = quotas(weights)
        self._cycle = interleave(self._quotas)
        given = self._cycle[:, None] == np.arange(len(sources))
        self._before = np.cumsum(given, axis=0) - given  # (SLOTS, sources)
        sizes = [len(source.corpus) for source in sources]
        self._first_document = np.cumsum([0, *sizes[:-1]])

    @cached_property
    def corpus(self) -> Corpus:
        """The corpora of all sources as one: what the document numbers of rows count."""
        return Corpus.concat(source.corpus for source in self.sources)

    @property
    def truncated(self) -> tuple[int, int]:
        """(documents, bytes of them) that no row of any source reads."""
        documents, size = zip(*(source.truncated for source in self.sources), strict=True)
        return sum(documents), sum(size)

    @property
    def fingerprint(self) -> str:
        """A hash of everything the sequence of rows depends on."""
        parts = [source.fingerprint for source in self.sources]
        return sha256(repr((parts, self._quotas.tolist())).encode()).hexdigest()[:32]

    def epoch(self, sample: int) -> int:
        """Epochs completed by the source that has completed most, before `sample`."""
        counts = sample // SLOTS * self._quotas + self._before[sample % SLOTS]
        return max(int(n) // s.count for n, s in zip(counts, self.sources, strict=True))

    def locate(self, samples: Integers) -> tuple[Integers, Integers]:
        """(source number, sample number within that source) of each sample."""
        rounds, slots = np.divmod(np.asarray(samples, dtype=np.int64), SLOTS)
        source = self._cycle[slots]
        return source, rounds * self._quotas[source] + self._before[slots, source]

    def rows(self, samples: Integers) -> Rows:
        """The rows of sample numbers of the mixture, in their order."""
        source, local = self.locate(samples)
        symbols = np.empty((len(source), self.length), dtype=np.int16)
        lengths = np.zeros(len(source), dtype=np.int64)
        documents = np.zeros(len(source), dtype=np.int64)
        single, ends, width = True, 0, 0
        for i in np.unique(source).tolist():
            rows = self.sources[i].rows(local[source == i])
            symbols[source == i, : rows.symbols.shape[1]] = rows.symbols
            lengths[source == i] = rows.lengths
            documents[source == i] = self._first_document[i] + rows.documents
            width = max(width, rows.symbols.shape[1])
            single &= rows.single
            ends += rows.ends
        return Rows(
            symbols=symbols[:, :width],
            lengths=lengths,
            documents=documents,
            single=single,
            ends=ends,
        )


def quotas(weights: Sequence[float]) -> Integers:
    """Whole numbers that sum to SLOTS, in proportion to `weights`, by the largest remainder."""
    share = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
        raise DataError(f"weights must be finite, not negative and not all zero: {list(weights)}")
    share = share / share.sum() * SLOTS
    whole = np.floor(share).astype(np.int64)
    by_remainder = np.argsort(-(share - whole), kind="stable")
    whole[by_remainder[: SLOTS - int(whole.sum())]] += 1
    lost = np.flatnonzero((whole == 0) & (np.asarray(weights) > 0))
    if len(lost):
        raise DataError(
            f"weight {weights[lost[0]]} is below 1/{SLOTS} of the sum: it gives no rows"
        )
    return whole


def interleave(quota: Integers) -> Integers:
    """(SLOTS,) source of each slot: always the one furthest behind its quota, ties to the first."""
    cycle = np.empty(SLOTS, dtype=np.int64)
    behind = np.zeros(len(quota), dtype=np.int64)
    for slot in range(SLOTS):
        behind += quota
        cycle[slot] = int(np.argmax(behind))
        behind[cycle[slot]] -= SLOTS
    return cycle
