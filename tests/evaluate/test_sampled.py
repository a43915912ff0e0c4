"""Bits per byte in limited time: the whole figure when there is time, an honest sample when not."""

import itertools
import math

import numpy as np
import pytest

from bytelm.errors import DataError
from bytelm.evaluate.bits import evaluate_bits
from bytelm.evaluate.report import summary
from bytelm.evaluate.sampled import evaluate_bits_within
from bytelm.lm.ngram import NgramLM
from tests.lm.contract import hnet, transformer

TEXT = b"".join(b"%d bottles of beer, " % n for n in range(40))
DOCUMENTS = [TEXT, b"", TEXT[:31], b"x", TEXT[5:38]]
MODELS = {
    "transformer": lambda: transformer(window=30, stride=11),
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
    "ngram": lambda: NgramLM.train([TEXT], order=3),
}


def ticks(step: float):
    """A clock that moves by `step` whenever it is looked at."""
    times = itertools.count()
    return lambda: next(times) * step


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_with_time_for_everything_it_is_the_whole_figure(name, seed):
    lm = MODELS[name]()
    whole = evaluate_bits(lm, DOCUMENTS)
    found = evaluate_bits_within(lm, DOCUMENTS, seconds=math.inf, seed=seed)
    assert (found.bytes, found.documents) == (whole.bytes, whole.documents)
    assert (found.window, found.stride) == (whole.window, whole.stride)
    assert found.bits == pytest.approx(whole.bits, rel=1e-9)
    assert found.end_bits == pytest.approx(whole.end_bits, rel=1e-9)
    assert found.standard_error is None and found.sampled_from is None


def test_a_sample_says_so_and_its_error_covers_the_whole_figure(monkeypatch):
    lm = transformer(window=30, stride=11)
    monkeypatch.setattr("bytelm.evaluate.sampled._BATCH_BYTES", 200)
    whole = evaluate_bits(lm, DOCUMENTS).bits_per_byte
    errors, misses = [], []
    for seed in range(40):
        found = evaluate_bits_within(lm, DOCUMENTS, seconds=10, seed=seed, clock=ticks(1.0))
        assert found.sampled_from == sum(map(len, DOCUMENTS)) > found.bytes > 0
        assert "A RANDOM SAMPLE of" in summary(found)
        errors.append(found.standard_error)
        misses.append(found.bits_per_byte - whole)
    # the stated error is the spread that forty samples have, and they are not all to one side
    assert np.mean(errors) == pytest.approx(np.std(misses), rel=0.4)
    assert abs(np.mean(misses)) < 3 * np.mean(errors) / math.sqrt(len(misses))


def test_it_stops_before_the_time_is_over_but_never_without_a_batch(monkeypatch):
    monkeypatch.setattr("bytelm.evaluate.sampled._BATCH_BYTES", 1)
    lm, seen = transformer(window=30, stride=11), []
    evaluate_bits_within(
        lm, [TEXT], seconds=8, clock=ticks(1.0), on_progress=lambda *at: seen.append(at)
    )
    assert len(seen) > 1 and seen[-1][0] < len(TEXT) == seen[-1][1]
    one = evaluate_bits_within(lm, [TEXT], seconds=0, clock=ticks(1.0))
    assert one.standard_error is None and one.sampled_from == len(TEXT)
    assert "standard error unknown" in summary(one)


@pytest.mark.parametrize("documents", [[], [b""], [b"", b""]])
def test_nothing_to_measure_is_an_error(documents):
    with pytest.raises(DataError, match="0 bytes"):
        evaluate_bits_within(MODELS["ngram"](), documents, seconds=1.0)
