"""Token models made from a byte source: conversion must give the source back.

All strings of a known law over bytes are tokenised, and the token model is the ratio of the sums
over the tree of their encodings (Phan et al.'s Markov-chain test). Whatever the tokenizer, the
converted model must then predict exactly as the source does, which reading the next token after
the encoded prompt does not.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from bytelm.exact import TabularLM, convert
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import (
    CallableEncoder,
    Encoder,
    GreedyEncoder,
    PlainBPE,
)
from bytelm.exact.tokenizers.expression import parse
from bytelm.exact.tokenizers.piece_automaton import PieceAutomaton, Split
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.pretokenized import PretokenizedBPE, expression_spans
from bytelm.exact.tokenizers.tables import merge_encoder


def chain(order: int, length: int) -> dict[bytes, float]:
    """All strings of A and B of a length, with probabilities of a random Markov chain."""
    rng = np.random.default_rng(order)
    after = {h: rng.uniform(0.05, 0.95) for n in range(order + 1) for h in _words(n)}
    law = {}
    for text in _words(length):
        p = 1.0
        for i in range(length):
            share = after[text[max(0, i - order) : i]]
            p *= share if text[i] == ord("A") else 1 - share
        law[text] = p
    return law


def _words(length: int) -> list[bytes]:
    return [bytes(letters) for letters in itertools.product(b"AB", repeat=length)]


def token_model(law: dict[bytes, float], vocab: list[bytes | None], encode) -> TabularLM:
    """The token LM whose texts are encodings of the law's texts. The last id is the end."""
    end = len(vocab)
    mass: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(end + 1))
    for text, p in law.items():
        tokens = [*encode(text), end]
        for i, token in enumerate(tokens):
            mass[tuple(tokens[:i])][token] += p
    nothing = np.zeros(end + 1)

    def distribution(history):
        p = mass.get(history, nothing)
        return p / p.sum() if p.any() else nothing  # never reached with any mass

    return TabularLM(distribution, [*vocab, None], eos_ids={end})


def ab_bpe(merges: list[tuple[bytes, bytes]]) -> tuple[list[bytes], Encoder]:
    vocab = [b"A", b"B", *(a + b for a, b in merges)]
    return vocab, merge_encoder(vocab, merges, None)


def ab_greedy() -> tuple[list[bytes], Encoder]:
    vocab = [b"A", b"B", b"AB", b"BBA", b"AAAB"]
    return vocab, GreedyEncoder(PrefixTrie(vocab))


TOKENIZERS = {
    "bpe AB ABA": lambda: ab_bpe([(b"A", b"B"), (b"AB", b"A")]),
    "bpe AA BAA BB": lambda: ab_bpe([(b"A", b"A"), (b"B", b"AA"), (b"B", b"B")]),
    "greedy": ab_greedy,
}


def check_source(lm, law: dict[bytes, float], prefixes) -> None:
    for prefix in prefixes:
        total = sum(p for text, p in law.items() if text.startswith(prefix))
        state = lm.start(prefix)
        assert state.logprob == pytest.approx(math.log(total), abs=1e-10)
        p = state.logprobs().exp()
        for byte in set(b"".join(law)):
            longer = sum(q for t, q in law.items() if t.startswith(prefix + bytes([byte])))
            assert p[byte].item() == pytest.approx(longer / total, abs=1e-10)
        assert p[256].item() == pytest.approx(law.get(prefix, 0) / total, abs=1e-10)


@pytest.mark.parametrize("mode", ["all", "canonical"])
@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("order", [1, 3])
def test_converting_gives_the_byte_source_back(order, name, mode):
    law = chain(order, 8)
    vocab, encoder = TOKENIZERS[name]()
    lm = convert(token_model(law, vocab, encoder.encode), encoder, mode=mode, beam=999, epsilon=0)
    check_source(lm, law, [word for n in range(8) for word in _words(n)[:: max(1, 2 ** (n - 4))]])


def test_the_next_token_after_an_encoded_prompt_is_not_the_next_byte():
    """The bias this package removes: naive prompting is wrong, and often certain of it."""
    law = chain(3, 8)
    vocab, encoder = TOKENIZERS["bpe AA BAA BB"]()
    model = token_model(law, vocab, encoder.encode)
    errors, certain = [], 0
    for prompt in [word for n in range(1, 6) for word in _words(n)]:
        p = model.distribution(tuple(encoder.encode(prompt)))
        if not p.any():
            continue
        naive = sum(p[i] for i, data in enumerate(vocab) if data[:1] == b"A")
        total = sum(q for t, q in law.items() if t.startswith(prompt))
        exact = sum(q for t, q in law.items() if t.startswith(prompt + b"A")) / total
        errors.append(abs(naive - exact))
        certain += naive in (0.0, 1.0)
    assert np.mean(errors) > 0.15
    assert certain > len(errors) / 4


def test_models_with_different_tokenizers_of_one_source_agree_byte_for_byte():
    law = chain(2, 8)
    scores = []
    for make in TOKENIZERS.values():
        vocab, encoder = make()
        model = token_model(law, vocab, encoder.encode)
        lm = convert(model, encoder, mode="canonical")
        scores.append(torch.stack([lm.score_with_end(text).sum() for text in _words(8)[::17]]))
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=0, atol=1e-12)


def blank_lines() -> tuple[list[bytes], Encoder, dict[bytes, float]]:
    """A tokenizer that keeps two line ends whole only if no letter follows."""
    vocab = [b"a", b"\n", b"\n\n", b"b"]
    encoder = merge_encoder(vocab, [(b"\n", b"\n")], expression_spans(r"\s+(?!\S)|\s|[ab]"))
    law = {b"a\n\nb": 0.5, b"a\n\n\n": 0.2, b"a\n\n": 0.1, b"ab\n": 0.1, b"\n\n\n\nb": 0.1}
    return vocab, encoder, law


def test_paragraph_breaks_need_the_lookahead_probes():
    vocab, encoder, law = blank_lines()
    assert encoder.encode(b"a\n\n") == [0, 2]
    assert encoder.encode(b"a\n\nb") == [0, 1, 1, 3]
    model = token_model(law, vocab, encoder.encode)
    prefixes = {text[:n] for text in law for n in range(len(text))}
    check_source(convert(model, encoder, mode="canonical"), law, prefixes)
    as_function = CallableEncoder(encoder.encode, vocab)
    check_source(convert(model, as_function, mode="canonical"), law, prefixes)


def test_the_single_prefix_rule_fails_at_a_paragraph_break():
    """ "The tokens before the last one are the encoding of their text" loses a\\n\\nb here."""
    vocab, encoder, law = blank_lines()
    model = token_model(law, vocab, encoder.encode)
    single = CallableEncoder(encoder.encode, vocab, prefix_closed=True)
    lost = convert(model, single, mode="canonical")
    exact = convert(model, encoder, mode="canonical")
    assert exact.start(b"a\n\n").logprobs()[ord("b")].exp().item() == pytest.approx(5 / 8)
    assert lost.start(b"a\n\n").logprobs()[ord("b")].exp().item() < 1e-9


LOOKING_AHEAD = {
    # "ab" is whole unless a letter of another range follows: no category tells them apart
    "ranges of letters": (
        r"[a-m]+(?![n-z])|[a-z]",
        [b"a", b"b", b"n", b"ab"],
        [(b"a", b"b")],
        {b"abn": 0.5, b"ab": 0.2, b"nab": 0.1, b"aabb": 0.1, b"abnab": 0.1},
        {b"ab": [3], b"abn": [0, 1, 2]},
    ),
    # groups of three from the right: what the first digits are depends on how many follow
    "digits from the right": (
        r"\d{1,3}(?=(?:\d{3})*(?!\d))|[a-z]+",
        [b"1", b"11", b"111", b"a"],
        [(b"1", b"1"), (b"11", b"1")],
        {b"1": 0.1, b"1111": 0.3, b"11111": 0.2, b"111111": 0.1, b"1111111": 0.1, b"a11111a": 0.2},
        {b"1111": [0, 2], b"11111": [1, 2], b"111111": [2, 2], b"1111111": [0, 2, 2]},
    ),
}


@pytest.mark.parametrize("name", LOOKING_AHEAD)
@pytest.mark.parametrize("mode", ["canonical", "canonicalised"])
def test_what_an_expression_sees_ahead_is_derived_from_the_expression(name, mode):
    expression, vocab, merges, law, known = LOOKING_AHEAD[name]
    encoder = merge_encoder(vocab, merges, expression_spans(expression))
    assert {text: encoder.encode(text) for text in known} == known
    model = token_model(law, vocab, encoder.encode)
    prefixes = {text[:n] for text in law for n in range(len(text))}
    check_source(convert(model, encoder, mode=mode), law, prefixes)


def test_a_word_that_merges_cannot_build_is_read_both_whole_and_in_parts():
    """`ignore_merges`: "abc" is a token when it is a whole word, though merges only make "ab"."""
    vocab = [b"a", b"b", b"c", b"ab", b"abc", b" "]
    encoder = merge_encoder(vocab, [(b"a", b"b")], expression_spans(r"\w+|\s"), ignore_merges=True)
    assert encoder.encode(b"abc abcc") == [4, 5, 3, 2, 2]
    law = {b"abc": 0.3, b"abc abcc": 0.2, b"abcc": 0.1, b"abca": 0.1, b"ab abc": 0.2, b"a": 0.1}
    model = token_model(law, vocab, encoder.encode)
    prefixes = {text[:n] for text in law for n in range(len(text))}
    for mode in ("all", "canonical"):
        check_source(convert(model, encoder, mode=mode, beam=99, epsilon=0), law, prefixes)


def test_sentencepiece_traps_dummy_blank_duplicate_bytes_and_fallback():
    """A blank both as a piece and as a byte, and characters that only bytes can write."""
    pieces = [" ", " a", "a", "b", "é"]
    vocab = [piece.encode() for piece in pieces] + [bytes([i]) for i in range(256)]
    ids = {piece: i for i, piece in enumerate(pieces)}

    def encode_text(text: str) -> list[int]:
        found: list[int] = []
        while text:
            best = max((p for p in pieces if text.startswith(p)), key=len, default=None)
            if best is None:
                best = text[0]
                found += [len(pieces) + byte for byte in best.encode()]
            else:
                found.append(ids[best])
            text = text[len(best) :]
        return found

    from bytelm.exact.converter import ByteConverter
    from bytelm.exact.tokenizers.encoders import CharacterEncoder

    encoder = CharacterEncoder(encode_text, {i: len(pieces) + i for i in range(256)})
    texts = ["a b", "é", "aè", "è a", "êb", " a", "b\u2581"]
    law = {text.encode(): p for text, p in zip(texts, np.arange(1, 8) / 28, strict=True)}
    model = token_model(law, vocab, lambda text: encoder.encode(b" " + text))
    prefixes = {text[:n] for text in law for n in range(len(text))}
    for mode in ("all", "canonical"):
        lm = ByteConverter(model, encoder, mode=mode, beam=99, epsilon=0, dummy_prefix=b" ")
        check_source(lm, law, prefixes)


def test_merges_of_a_growing_piece_are_those_from_scratch():
    rng = np.random.default_rng(0)
    for _ in range(30):
        vocab = [b"a", b"b", b"c"]
        merges = []
        while len(merges) < 7:
            pair = tuple(vocab[i] for i in rng.integers(0, len(vocab), 2))
            if pair[0] + pair[1] not in vocab:
                merges.append(pair)
                vocab.append(pair[0] + pair[1])
        ranks = {pair: i for i, pair in enumerate(merges)}
        pairs = BytePairs({d: i for i, d in enumerate(vocab)}, lambda a, b, r=ranks: r.get((a, b)))
        for _ in range(10):
            text = bytes(rng.choice(list(b"abc"), 80).tolist())
            expected = pairs.merge(text)
            assert [vocab[i] for i in pairs.encode(text)] == expected
            assert [vocab[i] for i in pairs.encode(text[:30])] == pairs.merge(text[:30])


def test_pieces_that_do_not_tile_the_text_are_refused():
    with pytest.raises(ValueError, match="drops characters"):
        PretokenizedBPE(
            BytePairs({b"a": 0}, lambda a, b: None), PieceAutomaton([Split(parse("a"), "removed")])
        )


def test_plain_merges_say_when_a_byte_has_no_token():
    encoder = PlainBPE(BytePairs({b"a": 0}, lambda a, b: None))
    assert encoder.prefixes(b"ax") == ()
    with pytest.raises(ValueError, match="cannot encode"):
        encoder.encode(b"ax")
