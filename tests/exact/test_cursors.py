"""Cursors against whole-text encodings: at each byte, the token prefixes that end there are those
which encoding the text so far, and what the pre-tokenizer's continuations make of it, gives."""

import random

import pytest

from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import PlainBPE
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.tables import merge_encoder
from bytelm.exact.tokenizers.token_node import TokenString
from tests.exact.test_canonical_cost import ENCODERS, TEXTS
from tests.exact.tiny import TOKENIZERS

ALPHABET = [
    *"abA 1.'!\t\n\r/T", "re", "ll", "é", "你", "\u0301", "\u3000", "\u2028", "\xa0", "\r\n", "  ",
]  # fmt: skip


def tokens(node: TokenString) -> tuple[int, ...]:
    found = []
    while node.parent is not None:
        found.append(node.token)
        node = node.parent
    return tuple(found[::-1])


def check(encoder, vocab, data: bytes) -> None:
    trie = PrefixTrie(vocab)
    root = TokenString(trie)
    cursor = encoder.begin(root, trie)
    for end in range(len(data) + 1):
        here = [None if node is None else tokens(node) for node in cursor.here()]
        expected = encoder.prefixes(data[:end])
        assert len(set(here)) == len(here)
        assert set(here) == set(expected), (data[:end], here, expected)
        assert here[:1] == list(expected[:1]) == [tuple(encoder.encode(data[:end]))]
        cursor = cursor.push(data[end]) if end < len(data) else cursor


def texts(seed: int) -> list[bytes]:
    draw = random.Random(seed)
    found = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 12))).encode() for _ in range(25)]
    found += [draw.randbytes(8) for _ in range(10)]
    return [*found, *(text[:40] for text in TEXTS.values())]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_token_prefixes_at_each_byte_are_those_of_the_text_so_far(name):
    vocab, encoder = ENCODERS[name]()
    for text in texts(seed=len(name)):
        check(encoder, vocab, text)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_cursors_of_tiny_tokenizers(make):
    vocab, encoder = make()
    draw = random.Random(1)
    # "abca" and "ccc" have two best unigram encodings, so an encoding restarted may choose another
    letters = b"ab" if make is TOKENIZERS["unigram"] else b"abc"
    for _ in range(10):
        check(encoder, vocab, bytes(draw.choices(letters, k=40)))


def test_merges_of_any_order_are_followed_a_byte_at_a_time():
    """Also tokens that no merge makes, and merges that come before those of their parts."""
    draw = random.Random(2)
    for _ in range(40):
        vocab = [b"a", b"b", b"c"]
        merges = []
        while len(merges) < 8:
            pair = (draw.choice(vocab), draw.choice(vocab))
            if pair not in merges:
                merges.append(pair)
                vocab += [pair[0] + pair[1]] * (pair[0] + pair[1] not in vocab)
        draw.shuffle(merges)
        vocab.append(b"cbacba")
        ranks = {pair: i for i, pair in enumerate(merges)}
        pairs = BytePairs({d: i for i, d in enumerate(vocab)}, lambda a, b, r=ranks: r.get((a, b)))
        encoder, trie = PlainBPE(pairs), PrefixTrie(vocab)
        cursor = encoder.begin(TokenString(trie), trie)
        text = bytes(draw.choices(b"abc", k=60))
        for end in range(1, len(text) + 1):
            cursor = cursor.push(text[end - 1])
            (node,) = cursor.here()
            assert [vocab[i] for i in tokens(node)] == pairs.merge(text[:end])


def test_a_piece_that_is_a_token_is_one_only_where_it_ends():
    vocab = [b"a", b"b", b"c", b"ab", b"abc", b" "]
    encoder = merge_encoder(vocab, [(b"a", b"b")], expression_spans(r"\w+|\s"), ignore_merges=True)
    for text in (b"abc abcc abc", b"abcabc ab c", b" abc"):
        check(encoder, vocab, text)


def test_bytes_without_a_token_have_no_token_prefix():
    vocab = [b"a", b"b", b"ab"]
    plain = merge_encoder(vocab, [(b"a", b"b")], None)
    pieces = merge_encoder(vocab, [(b"a", b"b")], expression_spans(r"\w+|\s"))
    trie = PrefixTrie(vocab)
    for encoder in (plain, pieces):
        cursor = encoder.begin(TokenString(trie), trie)
        for byte in b"ab ab":
            cursor = cursor.push(byte)
        assert cursor.here() == () == tuple(encoder.prefixes(b"ab ab"))
        assert cursor.settled() is not None
