"""What a beam prunes may be what the next byte needs: it waits, and comes back."""

import math

import pytest
import torch

from bytelm.exact import convert
from bytelm.exact.fallback import REACH, Reserve
from bytelm.exact.token_lm import TabularLM

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


def test_a_surprise_brings_back_the_hypothesis_that_foresaw_it(lms):
    beam, exact = lms
    before, truth = beam.start(b"ab"), exact.start(b"ab")
    assert before.batch.branches == [1]
    assert truth.batch.branches == [2]
    assert before.logprobs()[ord("c")] < truth.logprobs()[ord("c")]  # pruned: seen dimly
    after, truth = before.feed(b"c"), truth.feed(b"c")
    torch.testing.assert_close(after.logprobs(), truth.logprobs(), atol=0.01, rtol=0.01)
    assert after.batch.log_lower.item() == pytest.approx(truth.batch.log_lower.item(), abs=0.01)


def test_what_waits_keeps_a_dim_view_of_every_byte(lms):
    beam, _ = lms
    p = beam.start(b"ab").logprobs().exp()
    assert p.sum().item() == pytest.approx(1.0)
    assert (p > 0).all()
    assert p[ord("b")] > p[ord("x")]  # of two bytes nobody expects, the one the text has had


def test_weights_in_the_reserve_are_forgotten_beyond_its_reach():
    class Pruned:
        logprob = -3.0

    reserve = Reserve().push(0, (Pruned(),), factor=-1.0)
    assert reserve.weight == pytest.approx(-4.0)
    assert reserve.heavy(-5.0, 4) == [(0, reserve.places[0].trunks[0])]
    assert reserve.heavy(-3.9, 4) == reserve.heavy(-5.0, 0) == []
    assert reserve.without(reserve.heavy(-5.0, 4)).weight == -math.inf
    for _ in range(REACH):
        reserve = reserve.push(1, (), factor=0.0)
    assert reserve.weight == -math.inf
    assert reserve.frequencies().argmax() == 1
