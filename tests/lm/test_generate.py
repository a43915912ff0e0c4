"""Generation: what it writes is a sample of the model, whatever the batch, stream or constraint."""

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.lm.generate import generate, generate_batch
from bytelm.lm.infill import infill
from bytelm.lm.ngram import NgramLM
from bytelm.lm.options import GenerateOptions
from bytelm.lm.regex import regex_dfa
from bytelm.lm.sampling import Sampling
from bytelm.lm.utf8 import CharacterBuffer, open_character, utf8_dfa
from tests.lm.contract import hnet, ngram, transformer

MODELS = {
    "ngram": ngram,
    "transformer": transformer,
    "hnet": lambda: hnet(["m1", ["T1"], "m1"]),
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def lm(request):
    return request.param()


def test_greedy_text_is_the_argmax_at_every_step(lm):
    text, state = b"", lm.start(b"the ")
    while len(text) < 30 and (best := int(state.logprobs().argmax())) < 256:
        text += bytes([best])
        state = state.feed(bytes([best]))
    assert generate(lm, b"the ", max_bytes=30, temperature=0) == text


def test_a_row_of_a_batch_writes_what_it_writes_alone(lm):
    prompts = [b"sea ", b"", b"she sells sea shells", b"\xff"]
    together = generate_batch(lm, prompts, max_bytes=25, seed=5)
    for i, prompt in enumerate(prompts):
        alone = generate_batch(lm, [prompt], max_bytes=25, seed=5 + i)[0]
        assert together[i].data == alone.data == generate(lm, prompt, max_bytes=25, seed=5 + i)
        assert together[i].logprob == pytest.approx(alone.logprob, abs=1e-8)


def test_the_reported_log_probability_is_the_models(lm):
    result = generate_batch(lm, [b"a", b"bc"], max_bytes=12, temperature=0.7, seed=1)[1]
    scores = lm.score_with_end(result.data, context=b"bc")
    expected = scores.sum() if result.finish == "end" else scores[:-1].sum()
    assert result.logprob == pytest.approx(float(expected), abs=1e-8)
    assert result.log_mass == 0


def test_streamed_pieces_join_to_the_text_and_never_end_inside_a_character():
    lm = NgramLM.train(["naïve 東京 🦊 größe".encode()] * 9, order=5)
    for seed in range(8):
        pieces = list(generate(lm, b"na", max_bytes=40, seed=seed, stream=True))
        assert b"".join(pieces) == generate(lm, b"na", max_bytes=40, seed=seed)
        assert all(pieces) and all(not open_character(piece) for piece in pieces[:-1])


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_the_character_buffer_loses_nothing_and_holds_at_most_three_bytes(data, cuts):
    buffer, out, fed = CharacterBuffer(), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        out += buffer.push(data[fed:cut])
        fed = max(fed, min(cut, len(data)))
        assert 0 <= fed - len(out) <= 3
    assert out + buffer.flush() == data


@given(st.text(max_size=12))
def test_whole_characters_are_shown_at_once(text):
    assert CharacterBuffer().push(text.encode()) == text.encode()


def test_sampling_follows_the_distribution():
    lm = NgramLM.train([b"ab", b"ac", b"ac", b"a"] * 20, order=2)
    results = generate_batch(lm, [b"a"] * 4000, max_bytes=1, seed=0)
    found = Counter(result.data for result in results)
    logprobs = lm.start(b"a").logprobs()
    for outcome, data in ((98, b"b"), (99, b"c"), (256, b"")):
        expected = float(logprobs[outcome].exp())
        deviation = math.sqrt(expected * (1 - expected) / 4000)
        assert abs(found[data] / 4000 - expected) < 4.5 * deviation


def test_stop_strings_end_the_text_and_are_left_out_also_when_streamed():
    lm = NgramLM.train([b"one, two, three; four"] * 5, order=5)
    result = generate_batch(lm, [b"one"], max_bytes=60, temperature=0, stop=[b"; f", b"zz"])[0]
    assert (result.data, result.finish) == (b", two, three", "stop")
    pieces = list(generate(lm, b"one", max_bytes=60, temperature=0, stop=[b"; f"], stream=True))
    assert b"".join(pieces) == b", two, three"


def test_the_models_end_ends_the_text():
    lm = NgramLM.train([b"finis"] * 50, order=4)
    result = generate_batch(lm, [b"fi"], temperature=0)[0]
    assert (result.data, result.finish) == (b"nis", "end")


@pytest.mark.parametrize("seed", range(4))
def test_utf8_constrained_text_is_well_formed_whatever_the_length_limit(lm, seed):
    prompt = "é".encode()[:1]
    for max_bytes in range(1, 12):
        data = generate(lm, prompt, max_bytes=max_bytes, seed=seed, temperature=3.0, utf8=True)
        (prompt + data).decode()


PATTERNS = [
    r"\d{4}-\d\d", "(yes|no|maybe)!?", "[^a-z]{3,5}é*", r'"(\\.|[^"\\])*"', b"[\x80-\xff]+"
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regex_constrained_text_matches_as_a_whole(lm, pattern):
    for seed in range(4):
        data = generate(lm, b"x", max_bytes=12, seed=seed, temperature=2.0, regex=pattern)
        text = data.decode() if isinstance(pattern, str) else data
        assert re.fullmatch(pattern, text), (pattern, data)


def test_the_constraints_log_mass_is_the_probability_of_what_it_allows():
    lm = ngram()
    result = generate_batch(lm, [b"s"], max_bytes=2, seed=0, regex="[eh][a-z]")[0]
    state, expected = lm.start(b"s"), 0.0
    for byte, allowed in zip(result.data, (b"eh", bytes(range(97, 123))), strict=True):
        expected += float(state.logprobs()[list(allowed)].logsumexp(0))
        state = state.feed(bytes([byte]))
    assert result.finish == "constraint"
    assert result.log_mass == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"stop": [b""]}, "stop"),
        ({"regex": "(a"}, "invalid"),
        ({"regex": r"(a)\1"}, "groupref"),
        ({"regex": "(?i)a"}, "flag"),
        ({"regex": "a^b$"}, "anchors"),
        ({"regex": "a{9}", "max_bytes": 5}, "at least 9 bytes"),
        ({"regex": "[^\\s\\S]"}, "no text"),
    ],
)
def test_impossible_wishes_are_explained(options, message):
    with pytest.raises(BytelmError, match=message):
        generate(ngram(), b"", **options)


def test_filters_keep_what_they_say():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05] + [0.0] * 253], dtype=torch.float64)
    kept = {
        "top_k": Sampling(top_k=2).filter(p.log()) > 0,
        "top_p": Sampling(top_p=0.79).filter(p.log()) > 0,
        "min_p": Sampling(min_p=0.25).filter(p.log()) > 0,
    }
    assert {name: int(k.sum()) for name, k in kept.items()} == {"top_k": 2, "top_p": 2, "min_p": 3}


@settings(max_examples=200)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1))
def test_impossible_outcomes_are_never_chosen(uniform, seed):
    logprobs = torch.full((1, 257), -math.inf, dtype=torch.float64)
    possible = np.random.default_rng(seed).choice(257, size=3, replace=False)
    logprobs[0, possible] = torch.tensor([-1.0, -40.0, -2.0], dtype=torch.float64)
    assert Sampling().choose(logprobs, np.array([uniform]))[0] in possible


def test_top_k_of_one_keeps_one_outcome_however_many_are_equal():
    logprobs = torch.full((2, 257), -5.0)
    logprobs[0, [7, 9, 200]] = -1.0  # three equal ones; the second row is all equal
    for k in (1, 2, 3, 5, 256):
        kept = Sampling(top_k=k).filter(logprobs)
        assert (kept > 0).sum(-1).tolist() == [k, k]
    chosen = {tuple(Sampling(top_k=1).choose(logprobs, np.array([u, u]))) for u in (0, 0.4, 0.99)}
    assert chosen == {(7, 0)} == {tuple(logprobs.argmax(-1).tolist())}


@pytest.mark.parametrize(
    ("constraint", "stop"),
    [({"regex": r"[ab]{2,4};[ab]*"}, [b";"]), ({"utf8": True}, [b"\x80", b"\xa9", b"a"]),
     ({"regex": "(ab)*"}, [b"b"])],
)  # fmt: skip
def test_a_stop_string_never_leaves_a_text_that_violates_the_constraint(constraint, stop):
    lm = NgramLM.train(["abé;ba©ab;".encode()] * 3, order=1)
    dfa = utf8_dfa() if "utf8" in constraint else regex_dfa(constraint["regex"])
    rows = generate_batch(lm, [b""] * 40, max_bytes=12, stop=stop, **constraint)
    assert all(dfa.accepts(row.data) for row in rows)
    assert any(row.finish != "stop" for row in rows)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "a{99999999999}",
        "(" * 5000 + ")" * 5000,
        "(?:(?:a{99}){99}){99}",
        "[",
        b"(?L)a",
        "(?i:a)b",
    ],
)
def test_patterns_too_large_too_deep_or_unsupported_are_one_sentence(pattern):
    with pytest.raises(BytelmError, match="regular expression|automaton states") as found:
        GenerateOptions(regex=pattern)
        generate(NgramLM.train([b"a"]), regex=pattern)
    assert len(str(found.value)) < 400


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda lm: generate_batch(lm, [b"a"], context=b"xy"), "one context per prompt"),
        (lambda lm: generate(lm, b"a", context="xy"), "not the str"),
        (lambda lm: generate_batch(lm, b"ab"), "prompt is bytes, not int"),
        (lambda lm: generate(lm, b"a", regex=3), "str or bytes"),
        (lambda lm: generate(lm, b"a", top_k=1.5), "top_k must be a whole number"),
        (lambda lm: generate(lm, b"a", temperature="x"), "temperature must be a number"),
        (lambda lm: infill(lm, prefix="a", suffix=b"b"), "prefix or suffix is bytes, not str"),
        (lambda lm: infill(lm, prefix=b"a", suffix="b"), "prefix or suffix is bytes, not str"),
        (lambda lm: infill(lm, prefix=b"a", suffix=b"b", max_bytes=2.5), "whole"),
    ],
)
def test_what_has_the_wrong_type_is_named(ask, message):
    with pytest.raises(BytelmError, match=message):
        ask(NgramLM.train([b"abc"]))


def test_a_context_of_bytes_is_what_stands_before_the_prompt():
    lm = NgramLM.train([b"xyabc", b"abd"] * 9, order=4)
    written = generate(lm, b"ab", context=b"xy", max_bytes=1, temperature=0)
    assert written == generate(lm, b"xyab", max_bytes=1, temperature=0) == b"c"
