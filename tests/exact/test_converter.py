"""Properties of converted models that hold whatever the token model is."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.exact import TabularLM, TokenNgramLM, convert
from bytelm.exact.converter import ByteConverter
from bytelm.exact.tokenizers.encoders import CallableEncoder, GreedyEncoder
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from tests.exact.tiny import TOKENIZERS, random_lm

WORDS = [b"the", b"th", b"he", b" ", b" the", b"re", b"n", b" th", "é".encode(), b"\xc3"]
BYTES = [bytes([i]) for i in range(256)]
VOCAB: list[bytes | None] = [*BYTES, *WORDS, None]
END = len(VOCAB) - 1
TEXT = ("then there he " * 3 + "né the\nother ").encode()


def ngram_lm() -> tuple[TokenNgramLM, GreedyEncoder]:
    encoder = GreedyEncoder(PrefixTrie(VOCAB))
    lm = TokenNgramLM([encoder.encode(TEXT)], VOCAB, eos_ids={END}, order=3, smoothing=0.01)
    return lm, encoder


def modes() -> dict[str, ByteConverter]:
    lm, encoder = ngram_lm()
    return {
        "canonical": ByteConverter(lm, encoder, mode="canonical", beam=1, epsilon=0),
        "canonicalised": ByteConverter(lm, encoder, mode="canonicalised", beam=1, epsilon=0),
        "all": ByteConverter(lm, encoder, mode="all", beam=8, epsilon=1e-3),
        "all, no tokenizer": ByteConverter(lm, None, mode="all", beam=8, epsilon=1e-3),
    }


MODES = modes()
MODE = pytest.mark.parametrize("lm", MODES.values(), ids=MODES)
SOME_TEXT = st.lists(st.sampled_from([*WORDS, b"x", b"\xff"]), max_size=5).map(b"".join)


@MODE
@given(data=SOME_TEXT, cuts=st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=20)
def test_any_split_of_the_text_gives_the_same_state(lm, data, cuts):
    whole, parts, at = lm.start(data), lm.start(), 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        parts = parts.feed(data[at:cut])
        if cut % 2:
            parts.logprobs()  # asking in between changes nothing
        at = cut
    parts = parts.feed(data[at:])
    assert parts.logprob == pytest.approx(whole.logprob, abs=1e-10)
    torch.testing.assert_close(parts.logprobs(), whole.logprobs(), rtol=0, atol=1e-9)


@MODE
@given(data=SOME_TEXT)
@settings(max_examples=20)
def test_scores_are_the_steps_and_add_up_over_any_cut(lm, data):
    scores = lm.score_with_end(data)
    state = lm.start()
    for i, byte in enumerate(data):
        step = state.logprobs()
        assert step.exp().sum().item() == pytest.approx(1, abs=1e-12)
        assert scores[i].item() == pytest.approx(step[byte].item(), abs=1e-9)
        state = state.feed(bytes([byte]))
    assert scores[-1].item() == pytest.approx(state.logprobs()[256].item(), abs=1e-9)
    cut = len(data) // 2
    joined = lm.conditional_score(data[:cut], data[cut:]) + float(lm.score(data[:cut]).sum())
    assert joined == pytest.approx(float(scores[:-1].sum()), abs=1e-9)


@MODE
def test_states_are_immutable_and_rows_do_not_disturb_each_other(lm):
    texts = [b"then t", b"", b"\xff", TEXT[:9]]
    state = lm.start_batch(texts)
    before = state.logprobs()
    forked = state.select([0, 0, 3]).feed([b"he", b"", b"x"])
    torch.testing.assert_close(state.logprobs(), before, rtol=0, atol=0)
    torch.testing.assert_close(forked.logprobs()[1], before[0], rtol=0, atol=0)
    for row, text in enumerate([b"then the", b"then t", TEXT[:9] + b"x"]):
        alone = lm.start(text)
        torch.testing.assert_close(alone.logprobs(), forked.logprobs()[row], rtol=0, atol=1e-9)
        assert alone.logprob == pytest.approx(forked.logprob[row].item(), abs=1e-10)


@MODE
def test_shuffled_ids_change_nothing(lm):
    order = np.random.default_rng(0).permutation(len(VOCAB))
    place = np.argsort(order)
    inner, greedy = ngram_lm()
    vocab = [VOCAB[i] for i in order]
    shuffled = TabularLM(
        lambda history: inner.distribution(tuple(int(order[t]) for t in history))[order],
        vocab,
        eos_ids={int(place[END])},
    )
    encoder = None
    if lm.encoder is not None:
        encoder = CallableEncoder(
            lambda data: [int(place[t]) for t in greedy.encode(data)], vocab, prefix_closed=True
        )
    other = ByteConverter(shuffled, encoder, mode=lm.mode, beam=8, epsilon=1e-3)
    torch.testing.assert_close(
        other.score_with_end(TEXT[:20]), lm.score_with_end(TEXT[:20]), rtol=0, atol=1e-10
    )


def test_a_token_of_probability_zero_changes_nothing():
    vocab, _ = TOKENIZERS["bpe"]()
    lm = random_lm(vocab)
    (end,) = lm.eos_ids
    more = TabularLM(
        lambda h: [*lm.distribution(h), 0.0], [*lm.vocab_bytes, b"abcabc"], eos_ids={end}
    )
    a, b = convert(lm, beam=99, epsilon=0), convert(more, beam=99, epsilon=0)
    torch.testing.assert_close(a.score_with_end(b"abca"), b.score_with_end(b"abca"))


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_a_vocabulary_of_single_bytes_is_the_model_itself_at_one_row_per_byte(mode):
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(257), size=5)
    calls = []

    def distribution(history):
        calls.append(history)
        return rows[sum(history) % 5]

    lm = TabularLM(distribution, [*BYTES, None], eos_ids={256})
    converted = convert(lm, lambda data: list(data), mode=mode, epsilon=0)
    state = converted.start()
    for i, byte in enumerate(b"any bytes \xff\x00 at all"):
        expected = torch.from_numpy(rows[sum(b"any bytes \xff\x00 at all"[:i]) % 5]).log()
        torch.testing.assert_close(state.logprobs(), expected, rtol=0, atol=1e-12)
        assert state.batch.hypotheses == [1]
        state = state.feed(bytes([byte]))
    assert len(calls) == len(set(calls)) == len(b"any bytes \xff\x00 at all")


def test_no_token_prefix_is_evaluated_twice_and_canonical_costs_a_row_per_byte():
    inner, encoder = ngram_lm()
    asked = Counter()

    def distribution(history):
        asked[history] += 1
        return inner.distribution(history)

    lm = TabularLM(distribution, VOCAB, eos_ids={END})
    canonical = ByteConverter(lm, encoder, mode="canonical", beam=1, epsilon=0)
    canonical.score_with_end(TEXT)
    assert max(asked.values()) == 1
    assert len(asked) == len(TEXT) + 1  # the root, and one token prefix per byte
    asked.clear()
    beam = ByteConverter(lm, None, mode="all", beam=3, epsilon=0)
    beam.score_with_end(TEXT)
    assert max(asked.values()) == 1
    assert len(asked) <= 3 * len(TEXT) + 1


def test_a_beam_of_one_still_gives_every_byte_a_probability_and_can_follow_it():
    """Pruned hypotheses come back when nothing else spells the text."""
    lm, _ = ngram_lm()
    narrow = convert(lm, beam=1, epsilon=0.3)
    for data in (b"the\x00n", b"th\xc3x", TEXT + b"\xfe"):
        scores = narrow.score_with_end(data)
        assert torch.isfinite(scores).all()
        assert scores.max() <= 0


def test_impossible_bytes_and_texts_have_probability_zero_and_no_nan():
    lm = convert(TabularLM(lambda h: [0.5, 0.0, 0.5], [b"a", b"b", None], eos_ids={2}))
    state = lm.start(b"a")
    assert state.logprobs()[ord("b")] == -math.inf == state.logprobs()[ord("z")]
    dead = state.feed(b"z")
    assert dead.logprob == -math.inf
    assert bool(dead.logprobs().isneginf().all())
    assert dead.feed(b"a").logprob == -math.inf
    assert lm.score(b"az")[1] == -math.inf


def test_equal_logits_count_the_tokens():
    vocab, _ = TOKENIZERS["bpe"]()
    lm = convert(TabularLM(lambda h: [1 / 9] * 9, [*vocab, None], eos_ids={8}), epsilon=0)
    p = lm.start().logprobs().exp()
    for letter in b"abc":
        count = sum(data[0] == letter for data in vocab)
        assert p[letter].item() == pytest.approx(count / 9)


@pytest.mark.parametrize("size", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_long_texts_keep_their_digits(size):
    """Total log-probability against the direct sum, for a model with one encoding per text."""
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.ones(4), size=3)
    rows[:, 3] *= 1e-6
    rows /= rows.sum(1, keepdims=True)
    vocab = [b"a", b"b", b"c", None]
    lm = TabularLM(lambda h: rows[h[-1] if h else 0], vocab, eos_ids={3})
    lm.extend = lambda cache, asked: (  # the history is the last token: keep nodes small
        [(token,) for _, token in asked],
        torch.from_numpy(np.log(rows[[token for _, token in asked]])),
    )
    letters = rng.integers(0, 3, size)
    before = np.concatenate([[0], letters[:-1]])
    expected = math.fsum(np.log(rows[before, letters]))
    found = convert(lm, epsilon=0).start((97 + letters).astype(np.uint8).tobytes()).logprob
    assert found == pytest.approx(expected, rel=1e-9)


def test_mistakes_are_named():
    lm, encoder = ngram_lm()
    with pytest.raises(BytelmError, match="did you mean 'canonical'"):
        convert(lm, encoder, mode="canonicl")
    with pytest.raises(BytelmError, match="needs the tokenizer"):
        convert(lm, mode="canonical")
    with pytest.raises(BytelmError, match="beam must be at least 1"):
        convert(lm, beam=0)
    with pytest.raises(BytelmError, match="special symbol"):
        convert(lm).start(context=["fim_prefix"])
    with pytest.raises(BytelmError, match="2 rows"):
        convert(lm).start_batch([b"", b""]).feed([b"x"])
