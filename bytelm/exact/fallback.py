"""Trunks that were pruned and may come back: what they weigh now, and how they catch up.

Only evaluating a trunk costs a row of the model, so only trunks that would have to be evaluated are
pruned. Each waits here with the probability it had when it was pruned and an estimate of its weight
since: every byte multiplies all of them by the same factor (see `Opened.follow`). A byte that
surprises the live hypotheses costs them more than it costs those that wait, so one of these may
become worth a row after all. It is then evaluated where it was pruned and follows the bytes since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.logs import logsumexp
from bytelm.exact.prefix_tree import Trunk
from bytelm.exact.tokenizers.vocabulary import VocabularyIndex
from bytelm.vocab import OUTCOMES

REACH = 64  # bytes: what was pruned earlier is forgotten
_PRIOR = 32.0  # bytes of text that outweigh what the vocabulary says of their frequencies


@dataclass(frozen=True, slots=True)
class Waiting:
    """What was pruned at one position, likeliest first. A trunk weighs its `logprob` less `offset`
    plus the reserve's factor; `best` and `mass` are the logs of the largest such weight and of
    their sum, without the factor."""

    trunks: tuple[Trunk, ...] = ()
    offset: float = 0.0
    best: float = -math.inf
    mass: float = -math.inf

    @classmethod
    def of(cls, trunks: tuple[Trunk, ...], offset: float) -> Waiting:
        logprobs = [trunk.logprob for trunk in trunks]
        if not logprobs:
            return cls((), offset)
        return cls(trunks, offset, max(logprobs) - offset, logsumexp(logprobs) - offset)  # type: ignore[type-var,operator,arg-type]


@dataclass(frozen=True, slots=True)
class Reserve:
    """The pruned trunks of the last `REACH` positions, oldest first, and the byte after each. A
    value. `factor`: log of what the bytes so far have left of a weight of 1; `counts` (257,) how
    often each outcome has been seen, in the text or before."""

    places: tuple[Waiting, ...] = ()
    data: bytes = b""
    factor: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.full(OUTCOMES, 0.5))

    @classmethod
    def of(cls, index: VocabularyIndex) -> Reserve:
        """An empty one that has seen `_PRIOR` bytes, as frequent as in the vocabulary's tokens."""
        seen = np.bincount(index.flat, minlength=OUTCOMES) + 1.0
        return cls(counts=_PRIOR * seen / seen.sum())

    def frequencies(self) -> NDArray[np.float64]:
        """(257,) how frequent each outcome is."""
        return self.counts / self.counts.sum()

    @property
    def weight(self) -> float:
        """log of the estimated weight of all that wait."""
        return self.factor + logsumexp([place.mass for place in self.places])

    def push(self, byte: int, pruned: tuple[Trunk, ...], factor: float) -> Reserve:
        """After `byte`, before which `pruned` were pruned and which leaves `factor` (a log) of
        everything here."""
        places = (*self.places, Waiting.of(pruned, self.factor))[-REACH:]
        data = (self.data + bytes([byte]))[-REACH:]
        counts = self.counts.copy()
        counts[byte] += 1
        return Reserve(places, data, self.factor + factor, counts)

    def heavy(self, least: float, count: int) -> list[tuple[int, Trunk]]:
        """Up to `count` (place, trunk) that weigh more than `least`, the heaviest first."""
        bound = least - self.factor
        found = [
            (trunk.logprob - place.offset, i, trunk)  # type: ignore[operator]
            for i, place in enumerate(self.places)
            if place.best > bound
            for trunk in place.trunks
            if trunk.logprob - place.offset > bound  # type: ignore[operator]
        ]
        found.sort(key=lambda entry: -entry[0])
        return [(i, trunk) for _, i, trunk in found[:count]]

    def floors(self, least: float) -> list[float]:
        """For each place, the log probability that a trunk needs there to weigh `least` now."""
        return [least - self.factor + place.offset for place in self.places]

    def unrelated(self, trunk: Trunk) -> Reserve:
        """The reserve less what `trunk` stands on and what stands on it."""
        related = [
            (i, other)
            for i, place in enumerate(self.places)
            for other in place.trunks
            if trunk.stands_on(other) or other.stands_on(trunk)
        ]
        return self.without(related) if related else self

    def without(self, taken: list[tuple[int, Trunk]]) -> Reserve:
        """The reserve less these (place, trunk)."""
        gone = {trunk for _, trunk in taken}
        places = list(self.places)
        for i in {i for i, _ in taken}:
            left = tuple(trunk for trunk in places[i].trunks if trunk not in gone)
            places[i] = Waiting.of(left, places[i].offset)
        return replace(self, places=tuple(places))


EMPTY = Reserve()
