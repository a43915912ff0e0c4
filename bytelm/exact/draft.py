"""Evaluate along with what a text needs now what it will likely need next.

A forward pass over a few rows costs little more than one over a single row: it reads the same
weights. So when a text that arrives byte by byte needs a row, the bytes that its live hypotheses
hold likely to follow are drafted, and the token prefixes that a beam over them would evaluate fill
the call up. Nothing depends on it but the number of calls: what was drafted wrongly is dropped.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.hypothesis import Hypothesis
from bytelm.exact.logs import logaddexp, logsumexp
from bytelm.exact.text_beam import Ahead, TextBeam
from bytelm.exact.token_lm import rows_per_call
from bytelm.exact.token_tree import Distribution, TokenPrefix, evaluate
from bytelm.vocab import BYTES

_WORTH_A_ROW = 0.08  # probability that a row will be needed, from which on it is evaluated
_FREE_ROWS = 4  # calls of fewer rows cost as much, so improbable ones fill them up
_WORTH_NOTHING = 0.01
_FARTHEST = 64  # beginnings of a continuation that are looked at


def prefetch_likely(beams: Sequence[TextBeam]) -> list[tuple[TokenPrefix, Distribution]]:
    """Evaluate what expanding the beams needs, and what they will likely need, in one call. The
    former lives as long as the list that is returned, the latter with the beams."""
    wanting = [beam for beam in beams if beam.prediction is None]
    needed: dict[TokenPrefix, None] = {}
    for beam in wanting:
        kept, _ = beam.candidates()
        needed.update((prefix, None) for prefix, _ in kept if prefix.current() is None)
    if not needed:
        return []
    room = rows_per_call(next(iter(needed)).tree.lm) - len(needed)
    drafts: list[tuple[TextBeam, list[tuple[TokenPrefix, bytes]]]] = []
    for i, beam in enumerate(wanting):
        found = _likely(beam, max(room, 0) // (len(wanting) - i), _FREE_ROWS - len(needed))
        room -= len(found)
        drafts.append((beam, found))
    extra = [prefix for _, found in drafts for prefix, _ in found]
    known = dict(zip([*needed, *extra], evaluate([*needed, *extra]), strict=True))
    for beam, found in drafts:
        beam.ahead += tuple(Ahead(prefix, known[prefix], data) for prefix, data in found)
    return [(prefix, known[prefix]) for prefix in needed]


def _likely(beam: TextBeam, room: int, free: int) -> list[tuple[TokenPrefix, bytes]]:
    """Up to `room` token prefixes that are likely to be evaluated next, the likeliest first, and
    the bytes to come before each. free: how many of them may be improbable."""
    found: list[tuple[TokenPrefix, bytes]] = []
    hypotheses = _unfinished(beam.hypotheses)
    norm = logaddexp(logsumexp([h.logmass for h in beam.hypotheses]), beam.deferred.weight)
    ways: list[tuple[float, bytes, list[Hypothesis]]] = [(-1.0, b"", hypotheses)]
    for _ in range(_FARTHEST if room > 0 and hypotheses else 0):
        if not ways or len(found) == room:
            break
        reached, data, hypotheses = heapq.heappop(ways)
        missing = _missing(beam, data, hypotheses) if data else []
        if len(found) + len(missing) <= room:  # some of them would not save the call
            found += [(prefix, data) for prefix in missing]
        p = _next_bytes(_unfinished(hypotheses), norm)
        least = _WORTH_NOTHING if len(found) < free else _WORTH_A_ROW
        for byte in np.flatnonzero(p >= least).tolist():
            moved = [h for h in (h.after(byte) for h in _unfinished(hypotheses)) if h]
            heapq.heappush(ways, (-float(p[byte]), data + bytes([byte]), moved))
    return found


def _unfinished(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    return [h for h in (h.unfinished() for h in hypotheses) if h]


def _next_bytes(hypotheses: Sequence[Hypothesis], norm: float) -> NDArray[np.float64]:
    """(256,) probabilities of the next byte, as far as the hypotheses hold it."""
    p = np.zeros(BYTES)
    for hypothesis in hypotheses:
        weight = math.exp(hypothesis.logprob - norm)
        if weight > 0:
            trie, distribution = hypothesis.prefix.tree.trie, hypothesis.distribution
            p += weight * trie.split(distribution.p, hypothesis.token_range, hypothesis.depth)
    return p


def _missing(beam: TextBeam, data: bytes, hypotheses: Sequence[Hypothesis]) -> list[TokenPrefix]:
    """The token prefixes that the beam would evaluate after `data`, where `hypotheses` are."""
    if beam.pruning is not None:
        lower = logsumexp([hypothesis.logmass for hypothesis in hypotheses])
        there = TextBeam(tuple(hypotheses), pruning=beam.pruning, log_lower=lower)
        return [prefix for prefix, _ in there.candidates()[0] if prefix.current() is None]
    frontier = beam.frontier
    assert frontier is not None
    for byte in data:
        frontier = frontier.push(byte)
    return [prefix for prefix, _ in frontier.here() if prefix.current() is None]
