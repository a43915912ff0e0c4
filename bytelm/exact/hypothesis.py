"""The pieces of a text under conversion: one hypothesis, and all of them before the next byte."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.logs import log, logaddexp
from bytelm.exact.token_tree import Distribution, TokenPrefix
from bytelm.exact.tokenizers.prefix_trie import Range
from bytelm.vocab import BYTES, END, OUTCOMES

_LOG_2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Pruning:
    """How many token prefixes a byte may add, and the share of the mass below which one is not."""

    beam: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """All covers with this token prefix whose last token is in the range.

    prefix, distribution   whole tokens inside the text, and what the model says after them
    token_range            range of the prefix trie: last tokens that agree with the text so far
    depth                  bytes of the text that lie behind the end of the prefix
    logmass                log P (nats) of these covers together
    may_end                the text may end here (only at depth 0, where the prefix spells it all)
    """

    prefix: TokenPrefix
    distribution: Distribution
    token_range: Range
    depth: int
    logmass: float
    may_end: bool = False

    @property
    def logprob(self) -> float:
        """log P (nats) of the token prefix."""
        assert self.prefix.logprob is not None, "a hypothesis stands on an evaluated prefix"
        return self.prefix.logprob

    def after(self, byte: int) -> Hypothesis | None:
        """Those of the covers that continue with `byte`; None if there are none."""
        lo, hi = self.prefix.tree.trie.narrow(self.token_range, self.depth, byte)
        return None if lo == hi else self._within((lo, hi), self.depth + 1)

    def unfinished(self) -> Hypothesis | None:
        """Those of the covers whose last token goes beyond the text: the continuation of a token
        that ends here belongs to a longer token prefix. None if there are none."""
        lo, hi = self.token_range
        ended = self.prefix.tree.trie.ended(self.token_range, self.depth)
        if ended in (lo, hi):
            return self if ended == lo else None
        return self._within((ended, hi), self.depth)

    def _within(self, token_range: Range, depth: int) -> Hypothesis:
        logmass = self.logprob + log(self.distribution.mass(token_range))
        return Hypothesis(self.prefix, self.distribution, token_range, depth, logmass)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What predicts the next byte: the hypotheses, those that start at the end of the text
    included, and the deferred token prefixes.

    logmass        log mass of all continuations by a hypothesis, and of the end
    log_deferred   log of the estimated weight of everything deferred, `pruned` included
    log_pruned     log of the weight of what was pruned at the end of the text
    pruned         its token prefixes
    byte_prior     (257,) frequencies of outcomes in the text; 0 for those that nothing deferred can
                   write
    """

    hypotheses: tuple[Hypothesis, ...]
    logmass: float
    log_deferred: float
    log_pruned: float
    pruned: tuple[TokenPrefix, ...]
    byte_prior: NDArray[np.float64]

    @property
    def norm(self) -> float:
        """log of the weight of everything: what next-byte weights are divided by."""
        return logaddexp(self.logmass, self.log_deferred)

    def live(self) -> NDArray[np.float64]:
        """(257,) shares of `norm` that the hypotheses give each outcome."""
        p = np.zeros(OUTCOMES)
        norm = self.norm
        for hypothesis in self.hypotheses if norm > -math.inf else ():
            weight = math.exp(hypothesis.logprob - norm)
            if weight == 0.0:
                continue
            distribution = hypothesis.distribution
            p[:BYTES] += weight * hypothesis.prefix.tree.trie.split(
                distribution.p, hypothesis.token_range, hypothesis.depth
            )
            if hypothesis.may_end:
                p[END] += weight * distribution.end
        return p

    def predict(self, outcome: int, lower: float) -> float:
        """log weight of an outcome to which the hypotheses give `lower`."""
        return logaddexp(lower, self.log_deferred + self.predict_deferred(outcome, lower))

    def predict_deferred(self, outcome: int, lower: float) -> float:
        """log of the probability of that outcome under what is deferred: half as the hypotheses
        say, half the byte prior."""
        prior = log(self.byte_prior[outcome])
        if self.logmass == -math.inf:
            return prior
        return logaddexp(lower - self.logmass, prior) - _LOG_2

    def all_weights(self, live: NDArray[np.float64]) -> NDArray[np.float64]:
        """(257,) `predict` of all outcomes as shares of the whole, not as logs. live: (257,) the
        shares that the hypotheses give them."""
        share = math.exp(self.log_deferred - self.norm)
        mass = math.exp(self.logmass - self.norm)
        if mass < sys.float_info.min:  # too small to divide by
            return live + share * self.byte_prior
        return live + share / 2 * (live / mass + self.byte_prior)
