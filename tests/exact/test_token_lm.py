"""The protocol as a user meets it: a token model of one's own, from scratch, as a `ByteLM`.

`Bigrams` imports nothing of bytelm and inherits nothing. The oracle lists all its token strings of
a text with plain loops.
"""

import math

import pytest
import torch

import bytelm
from bytelm.errors import BytelmError
from bytelm.exact import ByteConverter, WindowedConverter
from tests.exact.tiny import bpe, random_lm, strings


class Bigrams:
    """p(token | last token), with "<s>" before and "</s>" after a text. A node is a number."""

    def __init__(self, weights: torch.Tensor):
        self.vocab_bytes = [None, None, b"a", b"b", b"ab", b"ba"]
        self.eos_ids = {1}
        self.start_ids = [0]
        self.logprobs = weights.log_softmax(-1)
        self.released = 0

    def open(self):
        return {0: 0}  # node -> its token

    def root(self, cache):
        return 0, self.logprobs[0]

    def extend(self, cache, rows):
        nodes = []
        for parent, token in rows:
            assert parent in cache, "a released node was used again"
            nodes.append(max(cache) + 1)
            cache[nodes[-1]] = token
        return nodes, self.logprobs[[token for _, token in rows]]

    def release(self, cache, nodes):
        for node in nodes:
            del cache[node]
        self.released += len(nodes)


@pytest.fixture
def mine() -> Bigrams:
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights[:, 0] = -math.inf  # "<s>" is never predicted
    return Bigrams(weights)


def greedy(data: bytes) -> list[int]:
    """Longest match from the left."""
    ids = []
    while data:
        ids.append({b"ab": 4, b"ba": 5}.get(data[:2]) or {b"a": 2, b"b": 3}[data[:1]])
        data = data[2 if ids[-1] > 3 else 1 :]
    return ids


def covers(lm: Bigrams, data: bytes, last: int = 0) -> float:
    """Sum over token strings that start with the bytes, the last one reaching their end."""
    total = 0.0
    for token, text in enumerate(lm.vocab_bytes):
        p = lm.logprobs[last, token].exp().item()
        if text is None:
            total += p * (not data and token == 1)
        elif data and text.startswith(data):
            total += p
        elif data and data.startswith(text):
            total += p * covers(lm, data[len(text) :], token)
    return total if data else 1.0


def test_a_model_from_scratch_converts_and_equals_the_sum_over_its_token_strings(mine):
    lm: bytelm.TokenLM = mine  # the protocol is structural
    exact = bytelm.convert(lm, beam=99, epsilon=0)
    for text in strings(b"ab", 5):
        assert exact.start(text).logprob == pytest.approx(math.log(covers(mine, text)), abs=1e-12)


def test_nodes_that_no_state_stands_on_are_released(mine):
    state = bytelm.convert(mine, greedy, mode="canonical").start()
    for byte in b"abba" * 10:
        state = state.feed(bytes([byte]))
    assert mine.released > 10


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_every_mode_takes_an_encode_function_and_gives_a_distribution(mine, mode):
    lm = bytelm.convert(mine, greedy, mode=mode)
    scores = lm.score_with_end(b"abba")
    state = lm.start(b"abb")
    assert state.logprobs().exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert state.logprobs()[ord("a")].item() == pytest.approx(scores[3].item(), abs=1e-12)
    assert len(bytelm.generate(lm, b"ab", max_bytes=8, seed=0)) <= 8


def test_settings_reach_the_converter(mine):
    lm = bytelm.convert(mine, greedy, mode="all", beam=3, epsilon=0.25)
    assert (lm.mode, lm.pruning.beam, lm.pruning.epsilon) == ("all", 3, 0.25)
    windowed = bytelm.convert(mine, greedy, mode="canonical", window=6, stride=2)
    assert isinstance(windowed, WindowedConverter)
    assert (windowed.window, windowed.stride, windowed.converter.mode) == (6, 2, "canonical")
    assert bytelm.convert(mine, window=6).stride == 3


def test_a_window_reads_a_long_text_with_the_last_bytes_alone(mine):
    whole = bytelm.convert(mine, greedy, mode="canonical")
    windowed = bytelm.convert(mine, greedy, mode="canonical", window=4, stride=2)
    text = b"abbababbaaba"
    scores = windowed.score(text)
    torch.testing.assert_close(scores[:5], whole.score(text[:5]), rtol=0, atol=1e-12)
    after = whole.score(text[6:7], context=text[2:6])  # byte 6 has been reached by x[2:6]
    torch.testing.assert_close(scores[6:7], after, rtol=0, atol=1e-12)
    assert windowed.start(text).logprob == pytest.approx(float(scores.sum()), abs=1e-12)


def test_a_context_with_specials_stands_before_every_window():
    vocab, encoder = bpe()
    whole = ByteConverter(
        random_lm([*vocab, None, None], horizon=40),
        encoder,
        mode="canonical",
        beam=1,
        epsilon=0,
        specials={"<s>": len(vocab), "<m>": len(vocab) + 1},
    )
    windowed = WindowedConverter(whole, window=7, stride=2)
    pinned, text = ["<s>", b"ca", "<m>"], b"abcabccbaabc"  # so that 3 bytes of text are read
    assert (windowed.specials, windowed.ends) == (whole.specials, whole.ends)
    scores = windowed.score(text, context=pinned)
    torch.testing.assert_close(scores[:4], whole.score(text[:4], context=pinned), rtol=0, atol=1e-9)
    for at, start in ((4, 1), (5, 2), (11, 8)):
        after = whole.score(text[at : at + 1], context=[*pinned, text[start:at]])
        assert float(scores[at]) == pytest.approx(float(after[0]), abs=1e-9)
    state = windowed.start(context=pinned)
    for i, byte in enumerate(text):
        assert float(state.logprobs()[byte]) == pytest.approx(float(scores[i]), abs=1e-9)
        state = state.feed(bytes([byte]))
    assert state.logprob == pytest.approx(float(scores.sum()), abs=1e-9)
    with pytest.raises(BytelmError, match="context has 7 symbols and the model reads 7 bytes"):
        windowed.score(text, context=["<s>", b"abccb", "<m>"])


@pytest.mark.filterwarnings("error")
def test_a_model_read_in_windows_is_asked_in_the_format_of_its_family():
    names = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    vocab, encoder = bpe()
    whole = ByteConverter(
        random_lm([*vocab, None, None, None], horizon=16),
        encoder,
        mode="canonical",
        beam=1,
        epsilon=0,
        specials={name: len(vocab) + i for i, name in enumerate(names)},
    )
    windowed = WindowedConverter(whole, window=40)
    asked = {"prefix": b"abc", "suffix": b"ca", "max_bytes": 6, "seed": 3}
    assert bytelm.infill(windowed, **asked) == bytelm.infill(whole, **asked)


def test_start_ids_may_be_given_where_the_model_has_none(mine):
    with pytest.raises(BytelmError, match="has its own start_ids"):
        bytelm.convert(mine, start=[2])
    headless = Bigrams(mine.logprobs)
    headless.start_ids = []
    lm = bytelm.convert(headless, start=[2, 4], beam=99, epsilon=0)
    expected = covers(mine, b"ba", last=4)
    assert lm.start(b"ba").logprob == pytest.approx(math.log(expected), abs=1e-12)
    scores = lm.score(b"ba", context=b"a")
    ratio = covers(mine, b"aba", last=4) / covers(mine, b"a", last=4)
    assert float(scores.sum()) == pytest.approx(math.log(ratio), abs=1e-12)
    with pytest.raises(BytelmError, match="start id 6 is not one"):
        bytelm.convert(headless, start=[6])


def test_a_stride_without_a_window_is_a_mistake(mine):
    with pytest.raises(BytelmError, match="give window"):
        bytelm.convert(mine, stride=3)
