"""One policy for what is impossible and what is not a number, held by every kind of model."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.exact import TabularLM, convert, converter
from bytelm.exact.continuation import continue_tokens
from bytelm.exact.converter import ByteConverter
from bytelm.exact.tokenizers.encoders import GreedyEncoder
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.windowed import WindowedConverter
from bytelm.lm.beam import beam_search
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.generate import generate, generate_batch
from bytelm.lm.infill import infill
from bytelm.lm.protocol import ByteLM
from tests.exact.tiny import random_lm
from tests.lm.contract import ngram, transformer
from tests.lm.impossible import check_impossible

pytestmark = pytest.mark.filterwarnings("ignore:the model has none of the formats")

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.lists(st.sampled_from([b"a", b"b", b"c", b"ab", b"abc", b"z"]), max_size=6).map(b"".join)


def forever(vocab: list[bytes | None], p: list[float], **settings: object) -> ByteConverter:
    """The same distribution after every token."""
    return convert(TabularLM(lambda h: p, vocab, eos_ids=settings.pop("eos", set())), **settings)


def finite(**settings: object) -> ByteConverter:
    """Texts of at most five tokens over abc; tokens that no history allows."""
    vocab = [b"a", b"b", b"c", b"ab", b"abc", b"bca", b"cc"]
    encoder = GreedyEncoder(PrefixTrie([*vocab, None]))
    return convert(random_lm(vocab), encoder, **settings)


def no_end(**settings: object) -> ByteConverter:
    return forever([b"a", b"ab", b"b", b"c"], [0.9, 0.05, 0.0499, 0.0001], **settings)


def alternating() -> ByteConverter:
    """After a comes b, after b anything but b: exact zeros that depend on the history."""
    laws = {0: [0, 1, 0, 0, 0], 1: [0.98, 0, 0.01, 0.005, 0.005]}
    vocab = [b"a", b"b", b"ab", b"abc", None]
    lm = TabularLM(lambda h: laws.get(h[-1] if h else 1, [0.2] * 5), vocab, eos_ids={4})
    return convert(lm, beam=1, epsilon=0.05)


def ensemble(how: str, **options: object) -> Ensemble:
    ab = forever([b"a", b"b", None], [0.5, 0.3, 0.2], eos={2})
    bc = forever([b"b", b"c", None], [0.4, 0.4, 0.2], eos={2})
    return Ensemble([ab, bc, forever([b"a", b"b", b"c", None], [0.3, 0.4, 0.2, 0.1], eos={3})], how)


CASES: dict[str, Callable[[], ByteLM]] = {
    "all": lambda: finite(beam=2, epsilon=0.1),
    "all, unpruned": lambda: finite(beam=99, epsilon=0),
    "all, narrow": lambda: finite(beam=1, epsilon=0.3),
    "canonical": lambda: finite(mode="canonical"),
    "canonicalised": lambda: finite(mode="canonicalised"),
    "no end": no_end,
    "no end, pruned": lambda: no_end(beam=1, epsilon=0.2),
    "zeros": alternating,
    "windowed": lambda: WindowedConverter(no_end(), window=3, stride=1),
    "windowed, finite": lambda: WindowedConverter(finite(), window=4, stride=2),
    "mixture": lambda: ensemble("mixture"),
    "bayes": lambda: ensemble("bayes"),
    "switch": lambda: ensemble("switch"),
    "product": lambda: Ensemble([finite(), ngram()], "product"),
    "proxy": lambda: Ensemble([finite(), ngram(), ngram(b"abcabc", order=1)], "proxy"),
    "native": lambda: transformer(layers=1),
    "ngram": ngram,
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def lm(request) -> ByteLM:
    return request.param()


@few
@given(text=TEXT)
def test_what_is_impossible_has_minus_infinity_everywhere_and_nothing_follows_it(lm, text):
    check_impossible(lm, text, b"abcz\n\xff")


@few
@given(texts=st.lists(TEXT, min_size=2, max_size=3))
def test_an_impossible_row_leaves_the_others_alone(lm, texts):
    batch = lm.start_batch(texts)
    for b, text in enumerate(texts):
        alone = lm.start(text)
        torch.testing.assert_close(batch.logprobs()[b], alone.logprobs(), rtol=1e-9, atol=1e-9)
    assert not bool(batch.logprob.isnan().any())


def test_the_end_has_probability_zero_without_an_end_symbol():
    for lm in (no_end(), no_end(beam=1, epsilon=0.2)):
        state = lm.start(b"aab")
        assert state.logprobs()[256] == -math.inf == lm.score_with_end(b"aab")[-1]


AB = [b"a", b"b", None]


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_a_prompt_that_the_vocabulary_cannot_spell_is_an_error_that_names_the_offset(mode):
    encoder = GreedyEncoder(PrefixTrie(AB))
    lm = convert(TabularLM(lambda h: [0.5, 0.3, 0.2], AB, eos_ids={2}), encoder, mode=mode)
    asked = (
        lambda: generate(lm, b"a\nb", max_bytes=6),
        lambda: b"".join(generate(lm, b"a\nb", max_bytes=6, stream=True)),
        lambda: generate(lm, b"a\nb", max_bytes=6, beams=2),
        lambda: beam_search(lm, b"a\nb"),
        lambda: infill(lm, prefix=b"a\nb", suffix=b"a", max_bytes=3),
    )
    for ask in asked:
        with pytest.raises(BytelmError, match="0x0a at offset 1"):
            ask()


def test_a_bad_prompt_does_not_disturb_the_rest_of_its_batch():
    lm = convert(TabularLM(lambda h: [0.5, 0.3, 0.2], AB, eos_ids={2}))
    with pytest.raises(BytelmError, match="offset 1"):
        generate_batch(lm, [b"ab", b"a\n"], max_bytes=3)


def test_infilling_stops_where_only_the_end_is_possible():
    law = {(): [1, 0, 0], (0,): [0, 1, 0]}
    lm = convert(TabularLM(lambda h: law.get(h, [0, 0, 1]), AB, eos_ids={2}))
    assert infill(lm, prefix=b"a", suffix=b"b", max_bytes=9) == b""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_are_an_error_wherever_they_show(bad):
    native = transformer(layers=1)
    with torch.no_grad():
        next(iter(native.model.parameters())).fill_(bad)
    asked = (
        lambda: native.start(b"a"),
        lambda: native.score(b"abc"),
        lambda: generate(native, b"a"),
        lambda: Ensemble([native, ngram()]).score(b"a"),
    )
    for ask in asked:
        with pytest.raises(BytelmError, match="not finite"):
            ask()
    broken = forever(AB, [bad, 0.3, 0.2], eos={2})
    with pytest.raises(BytelmError, match="weights are broken"):
        broken.start(b"a").logprobs()


def test_log_probabilities_that_are_logits_are_refused():
    class Logits(TabularLM):
        def root(self, cache):
            return (), torch.tensor([3.0, 2.0, 1.0])

    with pytest.raises(BytelmError, match="sum to"):
        convert(Logits(lambda h: [1, 0, 0], AB, eos_ids={2})).start(b"a")


def test_masses_too_small_to_divide_by_do_not_overflow():
    tiny = [1 - 1e-12, 5e-13, 5e-13 - 1e-313, 1e-313]
    lm = convert(TabularLM(lambda h: tiny, [b"a", b"aa", b"b", b"c"]), beam=1, epsilon=0.5)
    check_impossible(lm, b"ccaacb", b"abcz", tolerance=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_an_excluded_special_near_probability_one_does_not_cancel_the_rest(seed):
    """What is kept is summed; 1 - excluded has no digits left in float32."""
    rng = torch.Generator().manual_seed(seed)
    kept = torch.rand(3, generator=rng) * 1e-7
    p32 = torch.cat([kept, (1 - kept.double().sum())[None].float()])

    class Marked(TabularLM):
        def root(self, cache):
            return (), p32.log()

        def extend(self, cache, rows):
            return [() for _ in rows], p32.log().expand(len(rows), -1)

    lm = convert(Marked(lambda h: p32.numpy(), [b"a", b"b", None, None], eos_ids={2}))
    share = (kept.double() / kept.double().sum()).log()
    found = lm.start().logprobs()
    torch.testing.assert_close(found[[97, 98, 256]], share, rtol=0, atol=1e-6)
    torch.testing.assert_close(lm.score(b"ab"), share[:2], rtol=0, atol=1e-6)
    check_impossible(lm, b"abba", b"abz", tolerance=1e-6)


def test_many_short_documents_are_read_in_groups_of_bounded_memory(monkeypatch):
    lm, sizes = finite(), []
    together = ByteConverter._score_together

    def counted(self, texts, contexts):
        sizes.append(len(texts))
        return together(self, texts, contexts)

    monkeypatch.setattr(ByteConverter, "_score_together", counted)
    monkeypatch.setattr(converter, "_HELD_NUMBERS", 3 * len(lm.trie.vocab_bytes))
    texts = [b"a", b"", b"ab", b"abc", b"z", b"b", b"c"]
    found = lm.score_batch_with_end(texts)
    assert sizes == [3, 3, 1]
    for text, scores in zip(texts, found, strict=True):
        torch.testing.assert_close(scores, lm.score_with_end(text))


def test_continuing_with_no_tokens_is_nothing_and_less_is_an_error():
    lm = forever(AB, [0.5, 0.3, 0.2], eos={2})
    assert list(continue_tokens(lm, b"a", max_tokens=0)) == []
    with pytest.raises(BytelmError, match="max_tokens"):
        list(continue_tokens(lm, b"a", max_tokens=-1))
