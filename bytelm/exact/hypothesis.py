"""The pieces of a text under conversion: a hypothesis, and all of them before the next byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.logs import log, logaddexp
from bytelm.exact.prefix_tree import Distribution, Trunk
from bytelm.exact.tokenizers.vocabulary import Range

_LOG_2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Pruning:
    """How many trunks a byte may open, and the share of the mass below which one is not opened."""

    beam: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Branch:
    """All covers with this trunk whose last token is in the range.

    `depth` bytes of the text lie behind the trunk's end; `logmass` = log P of these covers;
    `ends`: the text may end here (only at depth 0, where the trunk spells the whole text).
    """

    trunk: Trunk
    distribution: Distribution
    places: Range
    depth: int
    logmass: float
    ends: bool = False

    def narrowed(self, byte: int) -> Branch | None:
        """Those of the covers that go on with `byte`; None if there are none."""
        index = self.trunk.tree.index
        lo, hi = index.narrow(self.places, self.depth, byte)
        if lo == hi:
            return None
        assert self.trunk.logprob is not None
        logmass = self.trunk.logprob + log(self.distribution.mass((lo, hi)))
        return Branch(self.trunk, self.distribution, (lo, hi), self.depth + 1, logmass)


@dataclass(frozen=True, slots=True)
class Opened:
    """A row with the trunks that start at its end: what predicts the next byte.

    `logmass` is the log mass of all continuations and the end; `escape` the log weight of what was
    pruned up to here and waits, `fresh` that of what was pruned here, `pruned` the latter's trunks;
    `usual` the (257,) frequencies of outcomes in the text.
    """

    branches: tuple[Branch, ...]
    logmass: float
    escape: float
    fresh: float
    pruned: tuple[Trunk, ...]
    usual: NDArray[np.float64]

    @property
    def norm(self) -> float:
        """log of the weight of everything: what next-byte weights are divided by."""
        return logaddexp(self.logmass, self.escape)

    def predict(self, outcome: int, lower: float) -> float:
        """log weight of an outcome to which the live hypotheses give `lower`."""
        return logaddexp(lower, self.escape + self.follow(outcome, lower))

    def follow(self, outcome: int, lower: float) -> float:
        """log of the probability of that outcome by those that wait: half as the live hypotheses
        say, half as usual."""
        usual = math.log(self.usual[outcome])
        if self.logmass == -math.inf:
            return usual
        return logaddexp(lower - self.logmass, usual) - _LOG_2

    def all_weights(self, live: NDArray[np.float64]) -> NDArray[np.float64]:
        """`predict` of all 257 outcomes as shares of the whole, not as logs."""
        share = math.exp(self.escape - self.norm)
        if self.logmass == -math.inf:
            return share * self.usual
        return live + share / 2 * (live / math.exp(self.logmass - self.norm) + self.usual)
