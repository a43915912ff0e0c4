"""Token prefixes that were pruned and may be reactivated: what they weigh now.

Only evaluating a token prefix costs a row of the model, so only prefixes that would have to be
evaluated are pruned. Each is deferred with the probability it had when it was pruned and an
estimate of its weight since: every byte multiplies all of them by the same factor (see
`Prediction.predict_deferred`). A byte that surprises the hypotheses costs them more than it costs
what is deferred, so a deferred prefix may become worth a row after all. It is then evaluated where
it was pruned and follows the bytes since (`reactivation.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.logs import logsumexp
from bytelm.exact.token_tree import TokenPrefix
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.vocab import OUTCOMES

LOOKBACK = 64  # bytes: what was pruned earlier is forgotten
_PRIOR = 32.0  # bytes of text that outweigh what the vocabulary says of their frequencies

At = tuple[int, TokenPrefix]  # a deferred prefix and its index in `Deferred.positions`


@dataclass(frozen=True, slots=True)
class PrunedHere:
    """What was pruned at one position, likeliest first. A prefix weighs its `logprob` less `offset`
    plus the factor of `Deferred`; `best` and `mass` are the logs of the largest such weight and of
    their sum, without the factor."""

    prefixes: tuple[TokenPrefix, ...] = ()
    offset: float = 0.0
    best: float = -math.inf
    mass: float = -math.inf

    @classmethod
    def of(cls, prefixes: tuple[TokenPrefix, ...], offset: float) -> PrunedHere:
        """With the sums over these prefixes, which were pruned when the factor was `offset`."""
        logprobs = [prefix.logprob for prefix in prefixes]
        if not logprobs:
            return cls((), offset)
        return cls(prefixes, offset, max(logprobs) - offset, logsumexp(logprobs) - offset)  # type: ignore[type-var,operator,arg-type]


@dataclass(frozen=True, slots=True)
class Deferred:
    """The pruned token prefixes of the last `LOOKBACK` positions, oldest first, and the byte after
    each. Immutable. `factor`: log of what the bytes so far have left of a weight of 1; `counts`
    (257,) how often each outcome has been seen, in the text or before."""

    positions: tuple[PrunedHere, ...] = ()
    data: bytes = b""
    factor: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.full(OUTCOMES, 0.5))

    @classmethod
    def of(cls, trie: PrefixTrie) -> Deferred:
        """Nothing deferred yet, and `_PRIOR` bytes seen, as frequent as in the vocabulary."""
        seen = np.bincount(trie.flat, minlength=OUTCOMES) + 1.0
        return cls(counts=_PRIOR * seen / seen.sum())

    def byte_prior(self) -> NDArray[np.float64]:
        """(257,) how frequent each outcome is."""
        return self.counts / self.counts.sum()

    @property
    def weight(self) -> float:
        """log of the estimated weight of all that is deferred."""
        return self.factor + logsumexp([here.mass for here in self.positions])

    def push(self, byte: int, pruned: tuple[TokenPrefix, ...], factor: float) -> Deferred:
        """After `byte`, before which `pruned` were pruned and which leaves `factor` (a log) of
        everything here."""
        positions = (*self.positions, PrunedHere.of(pruned, self.factor))[-LOOKBACK:]
        data = (self.data + bytes([byte]))[-LOOKBACK:]
        counts = self.counts.copy()
        counts[byte] += 1
        return Deferred(positions, data, self.factor + factor, counts)

    def heaviest(self, least: float, count: int) -> list[At]:
        """Up to `count` prefixes that weigh more than `least`, the heaviest first."""
        bound = least - self.factor
        found = [
            (prefix.logprob - here.offset, i, prefix)  # type: ignore[operator]
            for i, here in enumerate(self.positions)
            if here.best > bound
            for prefix in here.prefixes
            if prefix.logprob - here.offset > bound  # type: ignore[operator]
        ]
        found.sort(key=lambda entry: -entry[0])
        return [(i, prefix) for _, i, prefix in found[:count]]

    def least_logprobs(self, least: float) -> list[float]:
        """For each position, the log probability that a prefix needs there to weigh `least` now."""
        return [least - self.factor + here.offset for here in self.positions]

    def without_relatives(self, prefix: TokenPrefix) -> Deferred:
        """Less what `prefix` stands on and what stands on it."""
        related = [
            (i, other)
            for i, here in enumerate(self.positions)
            for other in here.prefixes
            if prefix.starts_with(other) or other.starts_with(prefix)
        ]
        return self.without(related) if related else self

    def without(self, taken: list[At]) -> Deferred:
        """Less these prefixes."""
        gone = {prefix for _, prefix in taken}
        positions = list(self.positions)
        for i in {i for i, _ in taken}:
            left = tuple(prefix for prefix in positions[i].prefixes if prefix not in gone)
            positions[i] = PrunedHere.of(left, positions[i].offset)
        return replace(self, positions=tuple(positions))


NOTHING_DEFERRED = Deferred()
