"""Automata against Python's own `re` and UTF-8 decoder."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
