"""Automata against Python's own `re` and UTF-8 decoder."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.lm.dfa import DEAD, _distances
from bytelm.lm.regex import regex_dfa
from bytelm.lm.utf8 import utf8_dfa

PATTERNS = [
    "", "abc", "a|b|", "a*b+c?", "(ab|a)(c|bcd)", "(?:x{2,3}y){2}", "[a-cx]+", "[^a]", ".", ".*b",
    r"\d+\s?\w*", r"[\w.]+@[\w.]+", "é+|ß", "[à-ÿ]{2}", "東.", "a{0}", "a{,2}", "(?s).a",
    "🦊?x", r"\W", r"\x41",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60)
@given(data=st.data())
def test_characters_match_as_in_re(pattern, data):
    near = st.from_regex(pattern, fullmatch=True)
    text = data.draw(near | st.text("abcxyéß東🦊 \n.@1", max_size=6))
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert regex_dfa(pattern).accepts(text.encode()) == bool(re.fullmatch(pattern, text))


@pytest.mark.parametrize("pattern", [b"a.c", b"[\x80-\xff]+", rb"\d\w\s", b"[^\x00]*\x00", b"\xc3"])
@settings(max_examples=60)
@given(data=st.data())
def test_byte_patterns_match_as_in_re(pattern, data):
    text = data.draw(st.from_regex(pattern, fullmatch=True) | st.binary(max_size=4))
    assert regex_dfa(pattern).accepts(text) == bool(re.fullmatch(pattern, text))


def test_every_character_of_a_class_and_no_other_is_in_the_automaton():
    for pattern in (r"\w", r"[^é]", "[\x7f-\u0801\ud7ff-\ue000\uffff-\U00010001]"):
        dfa, known = regex_dfa(pattern), re.compile(pattern)
        for code in [*range(0, 0x3000), *range(0xD000, 0x10FFFF, 53), 0xFFFF, 0x10000, 0x10FFFF]:
            if not 0xD800 <= code <= 0xDFFF:
                assert dfa.accepts(chr(code).encode()) == bool(known.fullmatch(chr(code))), code


EDGES = [0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC3, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5]


@settings(max_examples=300)
@given(
    st.binary(max_size=6)
    | st.text(max_size=3).map(str.encode)
    | st.lists(st.sampled_from(EDGES), max_size=5).map(bytes)
)
def test_the_utf8_automaton_agrees_with_the_decoder(data):
    try:
        data.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert utf8_dfa().accepts(data) == valid


def test_a_room_for_n_bytes_allows_what_n_bytes_can_finish():
    dfa = regex_dfa("a(bc|de{3})")
    after_a = dfa.run(b"a")
    assert bytes(dfa.allowed(after_a, 2).nonzero()[0].tolist()) == b"b"
    assert bytes(dfa.allowed(after_a, 4).nonzero()[0].tolist()) == b"bd"
    assert dfa.allowed(dfa.run(b"abc"), 0)[256]


def test_an_intersection_accepts_what_both_accept():
    both = regex_dfa("[ab]*").intersect(regex_dfa("..?"))
    assert both.accepts(b"a") and both.accepts(b"ab")
    assert not any(both.accepts(text) for text in (b"", b"aba", b"c"))


@pytest.mark.parametrize("inner", [r"\d+", r"\w+", r"\s", r"\D", r"\W\S", "[\\d_]x", ".", "a|é"])
@pytest.mark.parametrize("flags", ["(?a)", "(?s)", "(?u)", "(?x)", "(?as)", "(?a:%s)", "(?s:%s)."])
def test_flags_are_honoured_in_their_scope(inner, flags):
    pattern = flags % inner if "%s" in flags else flags + inner
    for text in ("12", "\u0663", "é", "\u2003", " ", "a", "_x", "\n", "a\n", "\nx", "٣_", "é\n"):
        assert regex_dfa(pattern).accepts(text.encode()) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize("flag", ["(?i)a", "(?m)^a$", "(?i:a)b", b"(?L)a", "(?ims)a"])
def test_other_flags_are_refused_by_name(flag):
    with pytest.raises(BytelmError, match="IGNORECASE|MULTILINE|LOCALE"):
        regex_dfa(flag)


@pytest.mark.parametrize(
    "pattern", ["^a+$", r"\Aa+\Z", "^(a|b$)", "(^a|^b)c", "^a|b$|c", "^$", "^(?:(^a)b)$", b"^a$"]
)
def test_anchors_around_the_whole_change_nothing(pattern):
    for text in ("", "a", "aa", "b", "ab", "ac", "bc", "c", "a\n", "^a$"):
        data = text.encode()
        expected = re.fullmatch(pattern, data if isinstance(pattern, bytes) else text)
        assert regex_dfa(pattern).accepts(data) == bool(expected), text


@pytest.mark.parametrize("pattern", ["a^b", "a$b", "(a^)b", "(a$)+", r"a\b", "a(?=b)", r"(a)\1"])
def test_anchors_inside_and_other_irregular_parts_are_refused(pattern):
    with pytest.raises(BytelmError, match="which constraints do not support"):
        regex_dfa(pattern)


def test_long_repeats_need_one_pass_over_the_automaton():
    """Breadth-first: each state is visited once, where a fixpoint takes one pass a byte."""
    dfa = regex_dfa("a{4000}")
    assert len(dfa.next_SB) == 4001
    assert dfa.distance.tolist() == list(range(4000, -1, -1))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_distances_are_those_of_relaxation_on_any_table(seed):
    rng = np.random.default_rng(seed)
    states = int(rng.integers(1, 12))
    table = rng.integers(-1, states, (states, 256)).astype(np.int32)
    table[rng.random(table.shape) < 0.97] = DEAD
    accepting = rng.random(states) < 0.3
    expected = np.where(accepting, 0.0, np.inf)
    for _ in range(states):
        reached = np.where(table == DEAD, np.inf, expected[table]).min(1) + 1
        expected = np.minimum(expected, reached)
    assert np.array_equal(_distances(table, accepting), expected)
