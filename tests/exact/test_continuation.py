"""Sampling one cover and continuing in tokens has the law of sampling byte by byte."""

import math
from collections import Counter

import pytest

from bytelm.errors import BytelmError
from bytelm.exact import TabularLM, convert
from bytelm.exact.continuation import continue_tokens
from tests.exact.tiny import TOKENIZERS, prefix_mass, random_lm, texts

DRAWS = 1200


@pytest.mark.parametrize("mode", ["all", "canonicalised"])
@pytest.mark.parametrize("prompt", [b"", b"ab", b"bc"])
def test_a_sampled_cover_and_native_tokens_follow_the_conditional_law(prompt, mode):
    vocab, encoder = TOKENIZERS["greedy"]()
    lm = convert(random_lm(vocab, horizon=3), encoder, mode=mode, beam=999, epsilon=0)
    state = lm.start(prompt)
    found = Counter(
        prompt + b"".join(continue_tokens(lm, state, max_tokens=99, seed=seed))
        for seed in range(DRAWS)
    )
    chi_square, cells, rest_seen, rest_expected = 0.0, 0, DRAWS, float(DRAWS)
    law = {text: lm.start(text) for text in found}
    for text, reached in law.items():
        log_share = reached.logprob + reached.logprobs()[256].item() - state.logprob
        expected = DRAWS * math.exp(log_share)
        if expected >= 8:
            chi_square += (found[text] - expected) ** 2 / expected
            cells += 1
            rest_seen -= found[text]
            rest_expected -= expected
    chi_square += (rest_seen - rest_expected) ** 2 / max(rest_expected, 1)
    assert cells >= 4
    assert chi_square < cells + 5 * (2 * cells) ** 0.5


def test_the_reference_law_agrees_with_enumeration():
    vocab, encoder = TOKENIZERS["greedy"]()
    inner = random_lm(vocab, horizon=3)
    mass = texts(inner)
    lm = convert(inner, encoder, mode="all", beam=999, epsilon=0)
    assert lm.start(b"ab").logprob == pytest.approx(math.log(prefix_mass(mass, b"ab")), abs=1e-10)


def test_tokens_are_counted_and_impossible_prompts_named():
    lm = convert(TabularLM(lambda h: [0.9, 0.0, 0.1], [b"ab", b"c", None], eos_ids={2}))
    pieces = list(continue_tokens(lm, b"a", max_tokens=3, seed=1))
    assert len(pieces) <= 3 and pieces[0] == b"b" and set(pieces[1:]) <= {b"ab"}
    with pytest.raises(BytelmError, match="probability 0"):
        list(continue_tokens(lm, b"x", max_tokens=3))
