"""Beam search against exhaustive search and against greedy decoding."""

from itertools import product

import pytest
import torch

from bytelm.errors import BytelmError
from bytelm.lm.beam import beam_search
from bytelm.lm.generate import generate
from bytelm.lm.protocol import ByteLM
from tests.lm.contract import ngram, t5, transformer

TEXTS = (b"", b"she sells", b"sea sh")


def every_text(lm: ByteLM, prompt: bytes, letters: bytes, longest: int):
    """log P of every text over `letters` that ends within `longest` bytes, or is cut off there."""
    state = {b"": (lm.start(prompt), 0.0)}
    found = {}
    for length in range(longest + 1):
        for letter in product(letters, repeat=length):
            text = bytes(letter)
            if text:
                before, logprob = state[text[:-1]]
                logprob += float(before.logprobs()[text[-1]].double())
                state[text] = (before.feed(text[-1:]), logprob)
            here, logprob = state[text]
            if length < longest:
                found[text, True] = logprob + float(here.logprobs()[256].double())
            else:
                found[text, False] = logprob
    return found


class TwoLetters(ByteLM):
    """A model that writes a and b only."""

    def __init__(self, lm: ByteLM):
        self.lm = lm

    def _start(self, prompts, contexts):
        return _Masked(self.lm._start(prompts, contexts))


class _Masked:
    def __init__(self, state):
        self.state, self.rows = state, state.rows

    def logprobs(self):
        logprobs = self.state.logprobs().double()
        kept = torch.full_like(logprobs, -torch.inf)
        kept[:, [97, 98, 256]] = logprobs[:, [97, 98, 256]]
        return kept.log_softmax(-1)

    def feed(self, data):
        return _Masked(self.state.feed(data))

    def select(self, rows):
        return _Masked(self.state.select(rows))


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_wide_beam_finds_what_exhaustive_search_finds(penalty):
    lm = TwoLetters(ngram(b"abba ab ba b abab", order=2))
    found = every_text(lm, b"ab", b"ab", 4)
    scores = {key: found[key] / max(1, len(key[0]) + key[1]) ** penalty for key in found}
    ranked = sorted(scores.values(), reverse=True)
    result = beam_search(lm, b"ab", beams=40, max_bytes=4, length_penalty=penalty)
    for hypothesis, score in zip(result[:8], ranked, strict=False):
        assert hypothesis.logprob == pytest.approx(found[hypothesis.data, hypothesis.ended])
        assert hypothesis.score == pytest.approx(score)


@pytest.mark.parametrize("make", [ngram, transformer, t5])
@pytest.mark.parametrize("prompt", TEXTS)
def test_one_beam_is_greedy_decoding(make, prompt):
    lm = make()
    [best] = beam_search(lm, prompt, beams=1, max_bytes=12)
    assert best.data == generate(lm, prompt, max_bytes=12, temperature=0)


@pytest.mark.parametrize("make", [ngram, transformer, t5])
def test_hypotheses_are_distinct_ranked_and_scored_by_the_model(make):
    lm = make()
    result = beam_search(lm, b"se", beams=4, max_bytes=6, context=b"sea")
    assert 1 <= len(result) <= 4 and len({(h.data, h.ended) for h in result}) == len(result)
    assert [h.score for h in result] == sorted((h.score for h in result), reverse=True)
    for h in result:
        scores = lm.score_with_end(b"se" + h.data, context=b"sea")[2:]
        expected = scores.sum() if h.ended else scores[:-1].sum()
        assert h.logprob == pytest.approx(float(expected), abs=1e-4)


def test_a_wider_beam_never_finds_less():
    lm = transformer()
    best = [beam_search(lm, b"she", beams=b, max_bytes=5)[0].logprob for b in (1, 8)]
    assert best[1] >= best[0] - 1e-9


def test_no_room_gives_the_empty_text():
    [only] = beam_search(ngram(), b"she", beams=3, max_bytes=0)
    assert only.data == b"" and only.logprob == 0.0 and not only.ended


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"max_bytes": -1}, {"length_penalty": -0.5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(BytelmError, match="must be at least"):
        beam_search(ngram(), **wrong)


def test_generate_gives_the_best_text_of_the_beam():
    lm = t5()
    options = {"max_bytes": 6, "length_penalty": 0.5, "context": b"a source"}
    expected = beam_search(lm, b"se", beams=4, **options)[0].data
    assert generate(lm, b"se", beams=4, **options) == expected


@pytest.mark.parametrize(
    "idle", [{"temperature": 0.0}, {"stop": [b"x"]}, {"seed": 3}, {"stream": True}, {"utf8": True}]
)
def test_options_without_effect_on_a_beam_are_refused(idle):
    with pytest.raises(BytelmError, match=next(iter(idle))):
        generate(ngram(), beams=2, **idle)
    with pytest.raises(BytelmError, match="give beams"):
        generate(ngram(), length_penalty=1.0)
