"""The words rule against Python's own regular expressions, and what it makes of odd texts."""

import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.boundary_rule import RuleOptions
from bytelm.nn.words import WordsRule
from bytelm.vocab import ByteVocab
from tests.nn.cuts import cut_whole, stretch_of

C = rb"[\x80-\xbf]*"  # continuation bytes
W = rb"(?:[\t-\r ]" + C + rb")"
L = rb"(?:[A-Za-z_\xc2-\xe1\xea-\xef]" + C + rb")"
D = rb"(?:[0-9]" + C + rb")"
P = rb"(?:[^\t-\r A-Za-z_0-9\x80-\xbf\xc2-\xe1\xe3-\xef\xf0-\xf4]" + C + rb")"
SINGLE = rb"(?:[\xe3-\xe9\xf0-\xf4]" + C + rb")"
LETTERS = L + rb"+(?:'" + C + L + rb"+)*(?:'" + C + rb")?"
WORD = re.compile(
    W + rb"*(?:" + LETTERS + rb"|" + D + rb"+|" + P + rb"+|" + SINGLE + rb")|" + W + rb"+"
    rb"|[\x80-\xbf]" + C + P + rb"*",
    re.DOTALL,
)  # fmt: skip
TEXTS = st.binary(max_size=40) | st.text(
    alphabet="ab_' \n1'.\u00e9\u4e2d\u2019\U0001f600", max_size=30
).map(str.encode)


def words(text: bytes, *, limit: int = 0) -> list[bytes]:
    """The chunks of a text behind a BOS."""
    rule = WordsRule(RuleOptions(dim=6, limit=limit))
    ids = torch.tensor([[ByteVocab().bos, *text]])
    cuts = cut_whole(rule, stretch_of(ids))
    at = [int(i) - 1 for i in cuts.starts[0].nonzero()[:, 0]]
    assert at[0] == -1, "the BOS is a chunk of its own"
    return [text[i:j] for i, j in pairwise([*at[1:], len(text)])]


@given(text=TEXTS)
def test_words_are_the_matches_of_the_regular_expression(text):
    assert words(text) == WORD.findall(text)


@given(text=TEXTS, limit=st.integers(1, 6))
def test_words_longer_than_the_limit_are_cut_into_pieces_of_it(text, limit):
    pieces = [word[i : i + limit] for word in words(text) for i in range(0, len(word), limit)]
    assert words(text, limit=limit) == pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Don't panic, 42 times!", [b"Don't", b" panic", b",", b" 42", b" times", b"!"]),
        (b"    return x_1\n", [b"    return", b" x_", b"1", b"\n"]),
        (b"''quoted''", [b"''", b"quoted'", b"'"]),
        (
            "\u4e2d\u6587 caf\u00e9".encode(),
            ["\u4e2d".encode(), "\u6587".encode(), " café".encode()],
        ),
        (b"", []),
        (b" " * 5, [b" " * 5]),
        (b"\0\0a\xff\x80\xc3", [b"\0\0", b"a", b"\xff\x80", b"\xc3"]),
        (b"\x80\x80", [b"\x80\x80"]),
    ],
)
def test_what_words_are(text, expected):
    assert words(text) == expected
