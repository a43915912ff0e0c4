"""One text under conversion: its live hypotheses, and what they say about the next byte.

A `Hypothesis` is an evaluated token prefix and the range of tokens that agree with the bytes since
its end, so it stands for all covers of the text which share that prefix. Each byte takes two steps.
`candidates` names the token prefixes that may start at the end of the text and `expand` adds them,
evaluated; `after` follows a byte in every hypothesis and drops those with nothing left. Modes
differ in `candidates` only: in `all`, the tokens that end exactly here, pruned; in the canonical
modes, the token prefixes of the `CanonicalFrontier`.

Three weights are kept apart. `log_lower` is the log mass of the live hypotheses, a lower bound on
the estimand; `log_dropped` bounds what pruning gave up, so P lies in [lower, lower + dropped].
`logprob` is the chain of per-byte conditionals, each normalised over 257 outcomes: a proper
distribution over texts, and what a `ByteLM` reports. The two differ by the mass that specials and
invalid continuations take at each step.

Only evaluating a token prefix costs anything, so only new ones are pruned, and those are not
forgotten: they are deferred. Their weight stays in the mixture, predicting half as the live
hypotheses do, because most of them spell the same text, and half by the frequencies of bytes in it,
so that nothing is ruled out. `reactivation.py` says when they come back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.deferred import NOTHING_DEFERRED, Deferred
from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.hypothesis import Hypothesis, Prediction, Pruning
from bytelm.exact.logs import log, logaddexp, logsumexp
from bytelm.exact.token_tree import Distribution, TokenPrefix, evaluate
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.vocab import END, OUTCOMES

_HYPOTHESES = 8  # times the beam: hypotheses that may live at once (they cost no row)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A token prefix that was evaluated before the text reached its end. data: the bytes that must
    follow for it to be a candidate."""

    prefix: TokenPrefix
    distribution: Distribution
    data: bytes

    def after(self, byte: int) -> Ahead | None:
        """The same one byte further; None if the text went another way."""
        if self.data[:1] != bytes([byte]):
            return None
        return Ahead(self.prefix, self.distribution, self.data[1:])


Candidate = tuple[TokenPrefix, bool]  # a token prefix, and whether the text may end after it


@dataclass(slots=True, eq=False)
class TextBeam:
    """The hypotheses of one text. Immutable, but for the memo of what comes next.

    hypotheses     of the text so far
    initial        token prefixes that start here whatever the mode says (the base of a text)
    pruning        None: nothing is pruned (the canonical modes)
    frontier       the tokenizer's view of the text; in mode `all` it only says what to prefetch
    logprob, log_lower, log_dropped   see the module's text, in nats
    deferred       what was pruned before this byte and may be reactivated
    canonical      mode `all`: the canonical token prefix that the beam must not lose
    least_logprob  log probability below which no token prefix is evaluated
    zeros          whether the model held some token impossible so far
    ahead          token prefixes that were evaluated in advance (`draft.py`)
    checked        whether what is deferred was stripped of what it cannot write (`possible.py`)
    """

    hypotheses: tuple[Hypothesis, ...] = ()
    initial: tuple[Candidate, ...] = ()
    pruning: Pruning | None = None
    frontier: CanonicalFrontier | None = None
    logprob: float = 0.0
    log_lower: float = 0.0
    log_dropped: float = -math.inf
    deferred: Deferred = NOTHING_DEFERRED
    canonical: TokenPrefix | None = None
    least_logprob: float = -math.inf
    zeros: bool = False
    checked: bool = False
    prediction: Prediction | None = None
    ahead: tuple[Ahead, ...] = ()

    def candidates(self) -> tuple[list[Candidate], list[TokenPrefix]]:
        """Token prefixes that start at the end of the text, and those that are pruned."""
        if self.initial:
            return list(self.initial), []
        if self.pruning is None:
            assert self.frontier is not None
            return list(self.frontier.here()), []
        ended = self._ended()
        ended.sort(key=lambda prefix: -prefix.logprob)  # type: ignore[operator]
        least = max(self.log_lower + log(self.pruning.epsilon), self.least_logprob)
        kept = [
            prefix
            for prefix in ended[: self.pruning.beam]
            if prefix.logprob > least  # type: ignore[operator]
        ]
        return [(prefix, True) for prefix in kept], ended[len(kept) :]

    def _ended(self) -> list[TokenPrefix]:
        """The token prefixes that the tokens which end exactly here make."""
        found = []
        for hypothesis in self.hypotheses:
            trie = hypothesis.prefix.tree.trie
            for token in trie.exact(hypothesis.token_range, hypothesis.depth).tolist():
                child = hypothesis.prefix.child(token)
                if child.logprob is None:
                    child.set_logprob(hypothesis.distribution)
                if child.logprob != -math.inf:
                    found.append(child)
        return found

    def expand(
        self,
        kept: Sequence[Candidate],
        distributions: Sequence[Distribution],
        pruned: Sequence[TokenPrefix],
    ) -> None:
        """Take in the candidates, evaluated."""
        hypotheses = [h for h in (h.unfinished() for h in self.hypotheses) if h]
        total = [hypothesis.logmass for hypothesis in hypotheses]
        for (prefix, may_end), distribution in zip(kept, distributions, strict=True):
            assert prefix.logprob is not None
            end = distribution.end if may_end else 0.0
            mass = prefix.logprob + log(distribution.tokens + end)
            everything = prefix.tree.trie.everything
            hypotheses.append(Hypothesis(prefix, distribution, everything, 0, mass, may_end))
            total.append(mass)
            self.zeros = self.zeros or distribution.zeros
        log_pruned = logsumexp([prefix.logprob for prefix in pruned])  # type: ignore[misc]
        self.prediction = Prediction(
            tuple(hypotheses),
            logsumexp(total),
            logaddexp(self.deferred.weight, log_pruned),
            log_pruned,
            tuple(pruned),
            self.deferred.byte_prior(),
        )

    def expanded(self) -> Prediction:
        """What comes next, evaluated now if it was not."""
        if self.prediction is None:
            expand([self])
        assert self.prediction is not None
        return self.prediction

    def deferred_trie(self) -> PrefixTrie:
        """The trie of the vocabulary, of a beam in which something is deferred."""
        assert self.prediction is not None
        prefixes = (
            *self.prediction.pruned,
            *(p for h in self.deferred.positions for p in h.prefixes),
        )
        return prefixes[0].tree.trie

    def logprobs(self) -> NDArray[np.float64]:
        """(257,) normalised log-probabilities of the next byte and the end; all -inf after a text
        of probability 0."""
        prediction = self.expanded()
        if prediction.norm == -math.inf or self.logprob == -math.inf:
            return np.full(OUTCOMES, -math.inf)
        p = prediction.all_weights(prediction.live())
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum())

    def log_end(self) -> float:
        """log P(end | text), as in `logprobs`, without the other 256 outcomes."""
        prediction = self.expanded()
        if prediction.norm == -math.inf or self.logprob == -math.inf:
            return -math.inf
        ends = [
            hypothesis.logprob + log(hypothesis.distribution.end)
            for hypothesis in prediction.hypotheses
            if hypothesis.may_end
        ]
        return prediction.predict(END, logsumexp(ends)) - prediction.norm

    def after(self, byte: int) -> list[Hypothesis]:
        """The hypotheses that agree with `byte` as the next one."""
        found = (hypothesis.after(byte) for hypothesis in self.expanded().hypotheses)
        return [hypothesis for hypothesis in found if hypothesis]


def strongest(
    hypotheses: list[Hypothesis], pruning: Pruning | None
) -> tuple[tuple[Hypothesis, ...], float]:
    """Those that live on after a byte, and the log mass of the rest: all of them, as they cost
    nothing any more, unless there are very many."""
    most = len(hypotheses) if pruning is None else _HYPOTHESES * pruning.beam
    if len(hypotheses) <= most:
        return tuple(hypotheses), -math.inf
    hypotheses = sorted(hypotheses, key=lambda hypothesis: -hypothesis.logmass)
    lost = logsumexp([hypothesis.logmass for hypothesis in hypotheses[most:]])
    return tuple(hypotheses[:most]), lost


def expand(beams: Sequence[TextBeam]) -> None:
    """Expand several beams in one LM call."""
    wanting = [beam for beam in beams if beam.prediction is None]
    found = [beam.candidates() for beam in wanting]
    distributions = iter(evaluate([prefix for kept, _ in found for prefix, _ in kept]))
    for beam, (kept, pruned) in zip(wanting, found, strict=True):
        beam.expand(kept, [next(distributions) for _ in kept], pruned)
