"""What a beam prunes may be what the next byte needs: it is deferred, and reactivated."""

import math

import numpy as np
import pytest
import torch

from bytelm.exact import TabularLM, convert
from bytelm.exact.deferred import LOOKBACK, Deferred

VOCAB = [b"a", b"b", b"c", b"ab", None]
A, B, C, AB, END = range(5)


def two_minds(history):
    """ "ab" is almost always one token, after which `c` is a rarity; spelled a, b it is all but
    certain."""
    if not history:
        return [4e-4, 1e-6, 1e-6, 1 - 4e-4 - 2e-6 - 1e-6, 1e-6]
    if history[0] == A:
        return [0.0, 1.0, 0.0, 0.0, 0.0] if len(history) == 1 else [0.01, 0.0, 0.98, 0.0, 0.01]
    return [0.5, 0.0, 1e-6, 0.4, 0.1 - 1e-6]


@pytest.fixture
def lms():
    def make(**options):
        return convert(TabularLM(two_minds, VOCAB, eos_ids={END}), **options)

    return make(beam=8, epsilon=1e-3), make(beam=64, epsilon=0.0)


def test_a_surprise_reactivates_the_hypothesis_that_predicted_it(lms):
    beam, exact = lms
    before, truth = beam.start(b"ab"), exact.start(b"ab")
    assert before.batch.hypotheses == [1]
    assert truth.batch.hypotheses == [2]
    assert before.logprobs()[ord("c")] < truth.logprobs()[ord("c")]  # pruned: seen dimly
    after, truth = before.feed(b"c"), truth.feed(b"c")
    torch.testing.assert_close(after.logprobs(), truth.logprobs(), atol=0.01, rtol=0.01)
    assert after.batch.log_lower.item() == pytest.approx(truth.batch.log_lower.item(), abs=0.01)


def test_what_is_deferred_keeps_every_byte_possible_that_it_can_write(lms):
    beam, exact = lms
    p = beam.start(b"ab").logprobs().exp()
    assert p.sum().item() == pytest.approx(1.0)
    assert torch.equal(p > 0, exact.start(b"ab").logprobs().exp() > 0)


def test_a_byte_that_nobody_expects_is_more_probable_if_the_text_has_had_it():
    vocab = [*(bytes([i]) for i in range(256)), b"ab", None]
    after_ab = np.full(258, 1e-6)
    after_ab[ord("c")] = 1 - 257e-6
    law = np.full(258, 1e-6)
    law[256] = 1 - 257e-6
    lm = convert(TabularLM(lambda h: after_ab if h else law, vocab, eos_ids={257}), epsilon=1e-3)
    p = lm.start(b"ababab").logprobs().exp()
    assert (p > 0).all()
    assert p[ord("b")] > p[ord("x")]


def test_what_was_pruned_is_forgotten_beyond_the_lookback():
    class Pruned:
        logprob = -3.0

    deferred = Deferred().push(0, (Pruned(),), factor=-1.0)
    assert deferred.weight == pytest.approx(-4.0)
    assert deferred.heaviest(-5.0, 4) == [(0, deferred.positions[0].prefixes[0])]
    assert deferred.heaviest(-3.9, 4) == deferred.heaviest(-5.0, 0) == []
    assert deferred.without(deferred.heaviest(-5.0, 4)).weight == -math.inf
    for _ in range(LOOKBACK):
        deferred = deferred.push(1, (), factor=0.0)
    assert deferred.weight == -math.inf
    assert deferred.byte_prior().argmax() == 1
