"""Infilling: formats are contexts, and untrained models are asked by exact probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.exact import TabularLM, convert
from bytelm.lm.generate import generate
from bytelm.lm.infill import TEMPLATES, find_template, infill, score_middles
from bytelm.lm.ngram import NgramLM
from bytelm.lm.protocol import ByteLM
from bytelm.lm.utf8 import utf8_between
from tests.lm.contract import transformer

COMPARED = {"template": "none"}  # for models without a format, which is otherwise said


class Recorder(ByteLM):
    """Knows some special symbols, notes what it is started with, and always ends."""

    def __init__(self, *symbols: str):
        self._symbols = {symbol: 1000 + i for i, symbol in enumerate(symbols)}
        self.started = []
        self.inner = NgramLM.train([b"mid"] * 50, order=3)

    @property
    def specials(self):
        return self._symbols

    def _start(self, prompts, contexts):
        self.started.append((list(prompts), contexts))
        return self.inner.start_batch(prompts)


def test_our_formats_are_those_of_training():
    template = TEMPLATES["bytelm"]
    context, prompt = template.fill("psm", prefix=b"P", suffix=b"S")
    assert (context, prompt) == (["fim_prefix", b"P", "fim_suffix", b"S", "fim_middle"], b"")
    context, prompt = template.fill("spm", prefix=b"P", suffix=b"S")
    assert (context, prompt) == (["fim_prefix", "fim_suffix", b"S", "fim_middle"], b"P")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_models_symbols_choose_its_format(name):
    lm = Recorder("<pad>", *TEMPLATES[name].symbols)
    assert find_template(lm) is TEMPLATES[name]
    filled = TEMPLATES[name].fill(prefix=b"a", suffix=b"z")
    expected = generate(lm.inner, filled[1], max_bytes=9, temperature=0)
    assert infill(lm, prefix=b"a", suffix=b"z", max_bytes=9, temperature=0) == expected
    ((prompts, context),) = lm.started
    assert (context, prompts) == ([tuple(filled[0])], [filled[1]])


def test_orders_a_family_never_saw_are_refused():
    with pytest.raises(BytelmError, match="not trained on the order spm"):
        infill(Recorder(*TEMPLATES["qwen"].symbols), prefix=b"a", suffix=b"b", order="spm")
    with pytest.raises(BytelmError, match="did you mean 'psm'"):
        infill(Recorder(), prefix=b"a", suffix=b"b", order="psn")


def test_an_order_without_a_format_is_an_error_and_not_ignored():
    lm = NgramLM.train([b"(a)"], order=2)
    with pytest.raises(BytelmError, match="order='psm' says how a format .* leave it out"):
        infill(lm, prefix=b"(", suffix=b")", max_bytes=1, order="psm", **COMPARED)


def test_a_model_without_a_format_is_told_of_unless_that_was_asked_for():
    lm = NgramLM.train([b"(a)", b"(b)"] * 5, order=3)
    with pytest.warns(UserWarning, match="none of the formats"):
        said = infill(lm, prefix=b"(", suffix=b")", max_bytes=1, temperature=0)
    assert said == infill(lm, prefix=b"(", suffix=b")", max_bytes=1, temperature=0, **COMPARED)


def test_text_that_spells_a_symbol_stays_text():
    lm = transformer(window=60, stride=30)
    plain = lm.start(b"", context=["fim_prefix", b"<fim_suffix>", "fim_suffix", b"", "fim_middle"])
    assert math.isfinite(float(plain.logprobs().sum()))
    filled = infill(lm, prefix=b"fim_middle", suffix=b"<|fim_suffix|>", max_bytes=5, seed=1)
    context = ["fim_prefix", b"fim_middle", "fim_suffix", b"<|fim_suffix|>", "fim_middle"]
    assert filled == generate(lm, b"", max_bytes=5, seed=1, context=context)


def test_untrained_models_find_the_middle_that_fits_both_sides():
    lm = NgramLM.train(
        [b"left one right. ", b"left two wrong. ", b"left six rough. "] * 20, order=6
    )
    for seed in range(3):
        middle = infill(
            lm,
            prefix=b"left ",
            suffix=b"right. ",
            max_bytes=8,
            temperature=0,
            seed=seed,
            **COMPARED,
        )
        assert middle == b"one "
    arguments = {"prefix": b"left one ", "suffix": b"right. "}
    assert infill(lm, max_bytes=8, temperature=0, **arguments, **COMPARED) == b""


def test_the_comparison_is_the_exact_joint_probability():
    lm = transformer(window=30, stride=10)
    middles = [b"", b"x", b"yes", b"\xff"]
    for middle, score in zip(middles, score_middles(lm, b"pre", b"suf", middles), strict=True):
        expected = lm.score(b"pre" + middle + b"suf").sum() - lm.score(b"pre").sum()
        torch.testing.assert_close(torch.tensor(score, dtype=torch.float64), expected)


def test_middles_are_chosen_in_proportion_to_their_probability():
    lm = NgramLM.train([b"(a)", b"(b)", b"(b)", b"(b)"] * 30, order=3)
    found = [
        infill(lm, prefix=b"(", suffix=b")", max_bytes=1, seed=seed, **COMPARED)
        for seed in range(200)
    ]
    joint = score_middles(lm, b"(", b")", [b"a", b"b"])
    expected = 1 / (1 + math.exp(joint[0] - joint[1]))
    assert abs(found.count(b"b") / 200 - expected) < 0.12
    assert set(found) <= {b"a", b"b", b""}


def test_utf8_middles_complete_the_characters_on_both_sides():
    word = "aßéß".encode()
    lm = NgramLM.train([word] * 30, order=4)
    borders = {"prefix": word[:2], "suffix": word[4:]}
    middle = infill(lm, max_bytes=3, utf8=True, temperature=0, **borders, **COMPARED)
    assert word[:2] + middle + word[4:] == word


def test_without_a_suffix_filling_is_continuing():
    lm = NgramLM.train([b"left one right. "] * 3, order=5)
    filled = infill(lm, prefix=b"left", max_bytes=6, seed=2)
    assert filled == generate(lm, b"left", max_bytes=6, seed=2)


def test_the_middle_of_the_best_joint_wins_however_many_short_ones_look_better():
    """Beginnings of every sample are many, and each has a higher P(middle and one byte of suffix)
    than the whole; the joint of the whole decides."""
    gap = b"one two three four five six seven"
    lm = NgramLM.train([b"(" + gap + b") end of it. "] * 40 + [b") x ", b"e) y "] * 3, order=6)
    arguments = {"prefix": b"(", "suffix": b") end of it. "}
    for count in (1, 4, 64):
        found = infill(lm, max_bytes=40, temperature=0, candidates=count, **arguments, **COMPARED)
        assert found == gap
    joint = score_middles(lm, b"(", b") end of it. ", [gap, b""])
    assert joint[0] > joint[1] + 10


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("order", ["psm", "spm"])
def test_fim_infilling_completes_half_characters_at_both_borders(cut, order):
    word = "🦊é🦊".encode()
    lm = transformer(window=60, stride=20)
    prefix, suffix = word[:cut], word[-cut:]
    for seed in range(5):
        middle = infill(
            lm, prefix=prefix, suffix=suffix, max_bytes=9, utf8=True, seed=seed, order=order
        )
        (prefix + middle + suffix).decode()


@given(st.text("aß東🦊", max_size=4).map(str.encode), st.data())
@settings(max_examples=40, deadline=None)
def test_between_two_texts_utf8_is_what_decodes(text, data):
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    between = utf8_between(text[:a], text[b:])
    assert between.accepts(text[a:b])
    for middle in (data.draw(st.binary(max_size=3)), text[a:b][:-1], text[a : b + 1]):
        try:
            (text[:a] + middle + text[b:]).decode()
            whole = True
        except UnicodeDecodeError:
            whole = False
        assert between.accepts(middle) == whole


def test_a_suffix_that_no_middle_can_reach_is_an_error():
    lm = convert(TabularLM(lambda h: [0.5, 0.3, 0.2], [b"a", b"b", None], eos_ids={2}))
    with pytest.raises(BytelmError, match="suffix probability zero"):
        infill(lm, prefix=b"a", suffix=b"z", max_bytes=3, **COMPARED)
