"""The n-gram baseline against a dictionary implementation of the same formula."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.lm.ngram import NgramLM


def witten_bell(documents: list[bytes], order: int, history: bytes, outcome: int) -> float:
    """p(outcome | history), by counting with dictionaries and recursion over the order."""
    counts: Counter = Counter()
    for document in documents:
        symbols = (256,) * order + tuple(document) + (256,)
        for i in range(order, len(symbols)):
            for k in range(order + 1):
                counts[symbols[i - k : i], symbols[i]] += 1

    def p(context: tuple) -> float:
        lower = p(context[1:]) if context else 1 / 257
        seen = {c: n for (h, c), n in counts.items() if h == context}
        total, types = sum(seen.values()), len(seen)
        return (seen.get(outcome, 0) + types * lower) / (total + types) if total else lower

    return p(((256,) * order + tuple(history))[len(history) :])


@settings(max_examples=25)
@given(
    documents=st.lists(st.binary(max_size=6), min_size=1, max_size=3),
    order=st.integers(0, 3),
    text=st.binary(max_size=4),
)
def test_probabilities_follow_the_formula(documents, order, text):
    lm = NgramLM.train(documents, order=order)
    scores = lm.score_with_end(text).exp().tolist()
    outcomes = [*text, 256]
    for i, (found, outcome) in enumerate(zip(scores, outcomes, strict=True)):
        assert found == pytest.approx(witten_bell(documents, order, text[:i], outcome), rel=1e-12)


def test_it_learns_a_text_better_than_chance_and_than_a_lower_order():
    text = b"the cat sat on the mat and the dog sat on the log. " * 40
    figures = [NgramLM.train([text[:1500]], order=k).bits_per_byte(text[1500:]) for k in (0, 1, 4)]
    assert 8 > figures[0] > figures[1] > figures[2] and figures[2] < 0.5


@pytest.mark.parametrize("order", [-1, 7])
def test_the_order_is_limited_by_the_width_of_a_key(order):
    with pytest.raises(BytelmError, match="between 0 and 6"):
        NgramLM.train([b"a"], order=order)


def test_training_on_nothing_is_an_error():
    with pytest.raises(BytelmError, match="no document"):
        NgramLM.train([])
