"""The sorted vocabulary against plain loops over all tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

TOKENS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=30)


def starting(tokens: list[bytes], prefix: bytes) -> list[int]:
    return sorted(i for i, data in enumerate(tokens) if data.startswith(prefix))


@given(TOKENS, st.binary(max_size=3))
def test_a_range_holds_exactly_the_tokens_that_start_with_the_prefix(tokens, prefix):
    index = PrefixTrie(tokens)
    lo, hi = index.find(prefix)
    assert sorted(index.order[lo:hi].tolist()) == starting(tokens, prefix)


@given(TOKENS, st.integers(0, 29), st.integers(0, 4))
def test_exact_matches_come_first_in_a_range_and_include_duplicates(tokens, which, length):
    tokens = tokens + tokens[:3]
    prefix = tokens[which % len(tokens)][:length]
    index = PrefixTrie(tokens)
    exact = index.exact(index.find(prefix), len(prefix)).tolist() if prefix else []
    assert sorted(exact) == [i for i, data in enumerate(tokens) if data == prefix]


@given(TOKENS, st.binary(max_size=2))
def test_split_sums_probabilities_by_the_next_byte(tokens, prefix):
    index = PrefixTrie(tokens)
    p = np.random.default_rng(0).random(len(tokens))
    by_id = np.empty(len(tokens))
    by_id[index.order] = p
    lo, hi = index.find(prefix)
    found = index.split(p, (index.ended((lo, hi), len(prefix)), hi), len(prefix))
    for byte in range(256):
        longer = starting(tokens, prefix + bytes([byte]))
        assert found[byte] == pytest.approx(by_id[longer].sum(), rel=1e-12, abs=0)


def covers(tokens: list[bytes], data: bytes) -> list[tuple[int, ...]]:
    """All covers by recursion from the definition."""
    if not data:
        return [()]
    found = []
    for i, token in enumerate(tokens):
        if token.startswith(data):
            found.append((i,))
        elif data.startswith(token):
            found += [(i, *rest) for rest in covers(tokens, data[len(token) :])]
    return found


@given(TOKENS, st.lists(st.integers(0, 29), max_size=4))
def test_covers_are_counted_as_an_enumeration_finds_them(tokens, chosen):
    data = b"".join(tokens[i % len(tokens)] for i in chosen)[:7]
    listed = covers(tokens, data)
    assert len(set(listed)) == len(listed)
    assert PrefixTrie(tokens).count_covers(data) == len(listed)


def test_zero_byte_tokens_and_ordinary_ends_are_refused():
    with pytest.raises(BytelmError, match="zero bytes"):
        PrefixTrie([b"a", b""])
    with pytest.raises(BytelmError, match="not a special token"):
        PrefixTrie([b"a", b"b"], eos_ids={1})
    with pytest.raises(BytelmError, match="no ordinary token"):
        PrefixTrie([None, None])
