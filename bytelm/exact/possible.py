"""Which outcomes a beam holds possible: what it gives weight is what it can follow.

Deferred token prefixes predict by the frequencies of bytes, as they are not evaluated. That must
not give weight to what none of them can write: a byte of no token, the end of a model without one.
With all 256 single bytes in the vocabulary and a model that gives every token some probability
there is nothing to ask. Otherwise the vocabulary tells which bytes can follow; and where the model
was seen to hold tokens impossible, it is asked, as it would be if the byte were fed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.reactivation import catch_up_all
from bytelm.exact.text_beam import TextBeam, expand
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.vocab import BYTES, END, OUTCOMES


def predict(beams: Sequence[TextBeam]) -> None:
    """Expand the beams in one call, and take from what is deferred the weight of outcomes that it
    cannot write."""
    expand(beams)
    for beam in beams:
        if beam.pruning is None or beam.checked:
            continue
        beam.checked = True
        prediction = beam.prediction
        assert prediction is not None
        if prediction.log_deferred == -math.inf:
            continue
        possible = _possible(beam)
        if possible.all():
            continue
        prior = np.where(possible, prediction.byte_prior, 0.0)
        if prior.any():
            beam.prediction = replace(prediction, byte_prior=prior / prior.sum())
        else:
            beam.prediction = replace(prediction, log_deferred=-math.inf)


def _possible(beam: TextBeam) -> NDArray[np.bool_]:
    """(257,) which outcomes may follow what is deferred."""
    assert beam.prediction is not None and beam.pruning is not None
    trie = beam.deferred_trie()
    if beam.zeros:
        continuations = catch_up_all(beam.deferred, beam.prediction.pruned, beam.pruning)
        expand(continuations)
        found = [each.expanded().live() > 0 for each in continuations]
        return np.any(found, axis=0) if found else np.zeros(OUTCOMES, bool)
    possible = np.ones(OUTCOMES, bool)
    possible[END] = len(trie.eos_ids) > 0
    if not trie.has_all_bytes:
        starts = [bool(here.prefixes) for here in beam.deferred.positions]
        possible &= _spelled(trie, [*starts, bool(beam.prediction.pruned)], beam.deferred.data)
    return possible


def _spelled(trie: PrefixTrie, starts: Sequence[bool], data: bytes) -> NDArray[np.bool_]:
    """(257,) what may follow `data` in token strings that begin before one of its bytes (or at its
    end) at which `starts` is true."""
    cursors: list[tuple[tuple[int, int], int]] = []
    boundary = False  # some token string ends here
    for i, start in enumerate(starts):
        boundary = boundary or start
        if boundary:
            cursors.append((trie.everything, 0))
        if i == len(data):
            break
        moved = [(trie.narrow(at, depth, data[i]), depth + 1) for at, depth in cursors]
        cursors = [(at, depth) for at, depth in moved if at[0] < at[1]]
        boundary = any(trie.ended(at, depth) > at[0] for at, depth in cursors)
    found = np.zeros(OUTCOMES, bool)
    found[END] = boundary
    for at, depth in cursors:
        found[:BYTES] |= trie.following(at, depth)
    return found
