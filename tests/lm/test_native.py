"""The native adapter beside its definition: plain forwards over the window the policy names."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.arch.transformer import Transformer, TransformerConfig
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.lm.native import NativeLM
from bytelm.lm.sliding_context import SlidingContext
from bytelm.vocab import ByteVocab
from tests.lm.contract import hnet, strong, transformer

VOCAB = ByteVocab()


@torch.no_grad()
def by_definition(lm: NativeLM, head: list[int], text: bytes, *, window: int, stride: int):
    """(n + 1,) log P, one forward a position over BOS, head and x[s:t]; s moves when it must."""
    scores, s = [], 0
    for t in range(len(text) + 1):
        while t - s > window:
            s += stride
        ids = torch.tensor([[VOCAB.bos, *head, *text[s:t]]])
        logits = lm.model(Batch(ids=ids)).logits[0, -1, :257]
        scores.append(float(logits.log_softmax(0)[text[t] if t < len(text) else 256]))
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (5, 1), (5, 5), (8, 3), (40, 20)])
def test_scores_follow_the_window_policy(window, stride):
    lm = transformer(window=window, stride=stride)
    text = bytes(range(90, 120))
    expected = by_definition(lm, [], text, window=window, stride=stride)
    torch.testing.assert_close(lm.score_with_end(text), expected, rtol=1e-10, atol=1e-10)


def test_a_context_longer_than_the_window_slides_like_the_text():
    lm = transformer(window=8, stride=3)
    lead, text = b"a long context", b"and text"
    expected = by_definition(lm, [], lead + text, window=8, stride=3)[len(lead) :]
    found = lm.score_with_end(text, context=lead)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_context_with_special_symbols_is_pinned_while_the_text_slides():
    lm = transformer(window=10, stride=4)
    context = ["fim_prefix", b"ab", "fim_suffix", b"z", "fim_middle"]
    head = [VOCAB["fim_prefix"], *b"ab", VOCAB["fim_suffix"], *b"z", VOCAB["fim_middle"]]
    text = b"eleven byte"
    expected = by_definition(lm, head, text, window=4, stride=2)
    found = lm.score_with_end(text, context=context)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    state = lm.start(text[:5], context=context).feed(text[5:])
    assert state.logprob == pytest.approx(float(expected[:-1].sum()), abs=1e-9)


def test_a_pinned_context_must_leave_room_for_text():
    with pytest.raises(BytelmError, match="shorten the context"):
        transformer(window=10).start(context=["fim_prefix", b"0123456789"])


@given(window=st.integers(1, 9), stride=st.integers(1, 9), first=st.integers(0, 30))
@settings(max_examples=100)
def test_segments_cover_every_position_once_from_its_own_start(window, stride, first):
    stride = min(stride, window)
    sliding = SlidingContext(window, stride)
    covered = []
    for s, lo, hi in sliding.segments(first, 40):
        assert all(sliding.start(t) == s and t - s <= window for t in range(lo, hi + 1))
        covered += range(lo, hi + 1)
    assert covered == list(range(first, 41))


def test_symbols_other_than_bytes_and_the_end_cannot_occur():
    lm = transformer()
    with torch.no_grad():
        lm.model.lm_head.weight[VOCAB.bos :] += 50.0
    state = lm.start(b"abc")
    assert float(state.logprobs().exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_scoring_in_small_batches_changes_nothing(monkeypatch):
    texts = [bytes([65 + i]) * (7 * i) for i in range(5)]
    lm = transformer()
    together = lm.score_batch_with_end(texts)
    monkeypatch.setattr("bytelm.lm.decoder.BATCH_POSITIONS", 12)
    for a, b in zip(together, lm.score_batch_with_end(texts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_long_prompt_is_not_scored_until_somebody_asks(monkeypatch):
    lm = transformer()
    calls = []
    score = lm.score_batch_with_end
    monkeypatch.setattr(
        lm, "score_batch_with_end", lambda *a, **k: calls.append(1) or score(*a, **k)
    )
    state = lm.start(b"a prompt").feed(b"!").feed(b"?")
    assert not calls
    assert state.logprob == pytest.approx(float(score([b"a prompt!?"])[0][:-1].sum()), abs=1e-9)
    assert state.feed(b".").logprob < state.logprob
    assert len(calls) == 1


def test_fp32_models_agree_step_by_step_and_at_once():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(layers=2, d_model=32, heads=2), VOCAB)
    lm = NativeLM(model, window=20)
    text = b"The quick brown fox jumps over the lazy dog."
    state, total = lm.start(), 0.0
    for byte in text:
        total += float(state.logprobs()[byte])
        state = state.feed(bytes([byte]))
    assert lm.start(text).logprob == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(("window", "stride"), [(0, None), (4, 5), (4, 0)])
def test_impossible_windows_are_refused(window, stride):
    model = strong(Transformer, TransformerConfig(layers=1, d_model=16, heads=2))
    with pytest.raises(BytelmError, match=r"window|stride"):
        NativeLM(model, window=window, stride=stride)


def test_chunk_boundaries_are_those_of_each_bytes_own_window():
    lm = hnet(["m1", ["t1", ["T1m1"], "t1"], "M1"])
    data = bytes(range(70, 110))
    stages = lm.chunk_boundaries(data)
    assert [len(stage) for stage in stages] == [40, 40]
    for i in (0, 11, 12, 13, 39):
        s = SlidingContext(12, 5).start(i + 1)
        ids = torch.tensor([[VOCAB.bos, *data[s : i + 1]]])
        alone = [bool(stage[0, -1]) for stage in lm.model.chunk_boundaries(ids)]
        assert alone == [bool(stage[i]) for stage in stages]
    inner = stages[1] & ~stages[0]
    assert not inner.any(), "an inner chunk can only begin where an outer one does"


def test_flat_models_have_no_chunks_to_show():
    with pytest.raises(BytelmError, match="hierarchical"):
        transformer().chunk_boundaries(b"abc")
