"""Every `ByteLM` keeps the contract of `bytelm.lm.protocol`: one test a property."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bytelm.errors import BytelmError
from bytelm.lm.protocol import ByteLM, ByteState
from tests.lm.contract import CASES, Case, ngram
from tests.lm.impossible import check_impossible

pytestmark = pytest.mark.filterwarnings("error")
few = settings(max_examples=5, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def lm(case) -> ByteLM:
    return case.make()


def stepwise(lm: ByteLM, data: bytes, lead: bytes = b"", source: bytes = b"") -> torch.Tensor:
    """The oracle: scores (n + 1,) read off the distributions, feeding one byte at a time."""
    state = lm.start(context=source)
    for byte in lead:
        state = state.feed(bytes([byte]))
    scores = []
    for byte in data:
        scores.append(float(state.logprobs()[byte]))
        state = state.feed(bytes([byte]))
    scores.append(float(state.logprobs()[256]))
    return torch.tensor(scores, dtype=torch.float64)


def assert_close(case: Case, left: torch.Tensor | float, right: torch.Tensor | float) -> None:
    left, right = (torch.as_tensor(x, dtype=torch.float64) for x in (left, right))
    torch.testing.assert_close(left, right, rtol=case.tolerance, atol=case.tolerance)


@few
@given(data=st.data())
def test_the_257_outcomes_share_all_probability(case, lm, data):
    state = lm.start(data.draw(case.texts))
    logprobs = state.logprobs()
    assert logprobs.shape == (257,)
    assert_close(case, logprobs.double().logsumexp(0), 0.0)


@few
@given(data=st.data())
def test_scoring_at_once_equals_feeding_byte_by_byte(case, lm, data):
    text = data.draw(case.texts)
    assert_close(case, lm.score_with_end(text), stepwise(lm, text))


@few
@given(data=st.data())
def test_the_scores_of_the_bytes_add_up_to_the_log_probability(case, lm, data):
    text = data.draw(case.texts)
    expected = stepwise(lm, text)[:-1].sum()
    assert_close(case, lm.start(text).logprob, expected)
    assert_close(case, lm.score(text).sum(), expected)


@few
@given(data=st.data())
def test_any_way_to_split_the_text_leads_to_the_same_state(case, lm, data):
    text = data.draw(case.texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    state = lm.start(pieces[0])
    for piece in pieces[1:]:
        state = state.feed(piece)
    whole = lm.start().feed(text)
    assert_close(case, state.logprobs(), whole.logprobs())
    assert_close(case, state.logprob, whole.logprob)


@few
@given(data=st.data())
def test_feeding_a_state_leaves_it_and_its_other_descendants_as_they_were(case, lm, data):
    text, left, right = (data.draw(case.texts) for _ in range(3))
    state = lm.start(text)
    before = state.logprobs().clone()
    first = state.feed(left)
    after_first = first.logprobs().clone()
    state.feed(right).feed(left)
    assert torch.equal(state.logprobs(), before)
    assert torch.equal(first.logprobs(), after_first)
    assert_close(case, first.feed(right).logprobs(), lm.start(text + left + right).logprobs())
    assert_close(case, state.feed(right).logprobs(), lm.start(text + right).logprobs())


@few
@given(data=st.data())
def test_a_row_is_what_it_would_be_alone(case, lm, data):
    rows = data.draw(st.lists(case.texts, min_size=2, max_size=4))
    fed = [data.draw(case.texts) for _ in rows]
    batch = lm.start_batch(rows).feed(fed)
    assert batch.rows == len(rows)
    for b, (row, piece) in enumerate(zip(rows, fed, strict=True)):
        alone = lm.start(row).feed(piece)
        assert_close(case, batch.logprobs()[b], alone.logprobs())
        assert_close(case, batch.logprob[b], alone.logprob)


@few
@given(data=st.data())
def test_rows_may_take_turns_byte_by_byte(case, lm, data):
    texts = [data.draw(case.texts) for _ in range(3)]
    batch = lm.start_batch([b""] * 3)
    longest = max(map(len, texts))
    for t in range(longest):
        batch = batch.feed([texts[0][t : t + 1], b"", texts[2][t : t + 1]])
        batch = batch.feed([b"", texts[1][t : t + 1], b""])
    assert_close(case, batch.logprobs(), lm.start_batch(texts).logprobs())
    assert_close(case, batch.logprob, lm.start_batch(texts).logprob)


@few
@given(data=st.data())
def test_selecting_forks_and_reorders_rows(case, lm, data):
    rows = [data.draw(case.texts) for _ in range(3)]
    more = data.draw(case.texts)
    batch = lm.start_batch(rows)
    before = batch.logprobs().clone()
    chosen = batch.select([2, 0, 2]).feed([more, b"", b""])
    expected = [rows[2] + more, rows[0], rows[2]]
    assert_close(case, chosen.logprobs(), lm.start_batch(expected).logprobs())
    assert_close(case, chosen.logprob, lm.start_batch(expected).logprob)
    assert torch.equal(batch.logprobs(), before)
    assert_close(
        case, batch.feed([more] * 3).logprobs(), lm.start_batch([r + more for r in rows]).logprobs()
    )


@few
@given(data=st.data())
def test_rows_that_join_at_different_times_are_what_they_would_be_alone(case, lm, data):
    texts = [data.draw(case.texts) for _ in range(5)]
    more = [data.draw(case.texts) for _ in range(5)]
    batch = lm.start_batch(texts[:2]).feed(more[:2])
    late, last = lm.start_batch(texts[2:4]), lm.start_batch(texts[4:])
    before = [part.logprobs().clone() for part in (batch, late, last)]
    joined = batch.join([late, last])
    assert joined.rows == 5
    assert_close(case, joined.logprobs(), torch.cat(before))
    whole = joined.feed([b"", b"", *more[2:]])
    expected = lm.start_batch([text + piece for text, piece in zip(texts, more, strict=True)])
    assert_close(case, whole.logprobs(), expected.logprobs())
    assert_close(case, whole.logprob, expected.logprob)
    kept = whole.select([4, 1, 2]).feed([texts[0], b"", texts[1]])
    ends = [texts[4] + more[4] + texts[0], texts[1] + more[1], texts[2] + more[2] + texts[1]]
    assert_close(case, kept.logprobs(), lm.start_batch(ends).logprobs())
    for part, old in zip((batch, late, last), before, strict=True):
        assert torch.equal(part.logprobs(), old), "feeding the whole leaves its parts as they were"


@few
@given(data=st.data())
def test_forks_can_be_joined_and_fed_apart(case, lm, data):
    text, left, right = (data.draw(case.texts) for _ in range(3))
    state = lm.start_batch([text])
    fork = state.feed([left])
    joined = state.join([fork, state])
    later = state.feed([right])  # a third continuation of what the joined rows came from
    fed = joined.feed([left, right, right])
    expected = lm.start_batch([text + left, text + left + right, text + right])
    assert_close(case, fed.logprobs(), expected.logprobs())
    assert_close(case, fed.logprob, expected.logprob)
    assert_close(case, later.logprobs()[0], fed.logprobs()[2])
    assert_close(case, fork.feed([right]).logprobs()[0], fed.logprobs()[1])


@few
@given(data=st.data())
def test_reading_ahead_is_feeding_byte_by_byte(case, lm, data):
    rows, pieces, more = ([data.draw(case.texts) for _ in range(3)] for _ in range(3))
    state = lm.start_batch(rows)
    before = state.logprobs().clone()
    ahead = state.read_ahead(pieces)
    for row, piece, found in zip(rows, pieces, ahead.logprobs, strict=True):
        assert min(1, len(piece)) <= len(found) <= len(piece)
        for i, logprobs in enumerate(found):
            expected = lm.start(row).feed(piece[: i + 1])
            assert_close(case, logprobs, expected.logprobs())
    for _ in range(2):  # a rejection anywhere, in every row
        counts = [data.draw(st.integers(0, len(found))) for found in ahead.logprobs]
        kept = [row + piece[:n] for row, piece, n in zip(rows, pieces, counts, strict=True)]
        settled, expected = ahead.state(counts), lm.start_batch(kept)
        assert_close(case, settled.logprobs(), expected.logprobs())
        assert_close(case, settled.logprob, expected.logprob)
        for fed in (more, [more[0], b"", more[2]]):
            assert_close(case, settled.feed(fed).logprobs(), expected.feed(fed).logprobs())
        swapped = settled.select([2, 0]).join([state]).feed([more[0], b"", *more])
        again = expected.select([2, 0]).join([lm.start_batch(rows)]).feed([more[0], b"", *more])
        assert_close(case, swapped.logprobs(), again.logprobs())
    assert torch.equal(state.logprobs(), before)


@few
@given(data=st.data())
def test_a_text_is_read_ahead_with_a_rejection_at_every_position(case, lm, data):
    """Each round reads some of the text in advance, followed by bytes that turn out wrong."""
    text, wrong = data.draw(case.texts), data.draw(case.texts)
    state, at = lm.start(), 0
    while at < len(text):
        size = data.draw(st.integers(1, 5))
        ahead = state.batch.read_ahead([text[at : at + size] + wrong])
        kept = min(size, len(text) - at, len(ahead.logprobs[0]))
        state, at = ByteState(ahead.state([kept])), at + kept
        expected = lm.start(text[:at])
        assert_close(case, state.logprobs(), expected.logprobs())
        assert_close(case, state.logprob, expected.logprob)


def test_states_of_different_models_are_not_joined(case, lm):
    with pytest.raises(BytelmError, match="same model"):
        lm.start_batch([b""]).join([ngram().start_batch([b""])])


@few
@given(data=st.data())
def test_conditional_scores_add_up_over_any_cut(case, lm, data):
    x, y = data.draw(case.texts), data.draw(case.texts)
    whole, left = lm.score(x + y).sum(), lm.score(x).sum()
    assert_close(case, lm.conditional_score(x, y), whole - left)


@few
@given(data=st.data())
def test_a_context_of_bytes_conditions_without_being_scored(case, lm, data):
    x, y = data.draw(case.texts), data.draw(case.texts)
    state = lm.start(y, context=x)
    if case.source:
        expected = stepwise(lm, y, source=x)
    else:
        assert_close(case, state.logprobs(), lm.start(x + y).logprobs())
        expected = stepwise(lm, y, lead=x)
    assert_close(case, state.logprob, expected[:-1].sum())
    assert_close(case, lm.score_with_end(y, context=x), expected)


@few
@given(data=st.data())
def test_rows_with_contexts_of_any_length_are_what_they_would_be_alone(case, lm, data):
    contexts, texts, more = ([data.draw(case.texts) for _ in range(3)] for _ in range(3))
    batch = lm.start_batch(texts[:2], context=contexts[:2])
    batch = batch.join([lm.start_batch(texts[2:], context=contexts[2:])]).feed(more)
    chosen = batch.select([2, 0, 1, 2])
    scores = lm.score_batch_with_end(more, context=contexts)
    for b in range(3):
        alone = lm.start(texts[b], context=contexts[b]).feed(more[b])
        assert_close(case, batch.logprobs()[b], alone.logprobs())
        assert_close(case, batch.logprob[b], alone.logprob)
        assert_close(case, scores[b], lm.score_with_end(more[b], context=contexts[b]))
        assert_close(case, chosen.logprobs()[b], batch.logprobs()[[2, 0, 1][b]])


@few
@given(data=st.data())
def test_many_texts_are_scored_as_each_alone(case, lm, data):
    texts = data.draw(st.lists(case.texts, max_size=4))
    together = lm.score_batch_with_end(texts)
    assert len(together) == len(texts)
    for text, scores in zip(texts, together, strict=True):
        assert scores.dtype == torch.float64
        assert_close(case, scores, lm.score_with_end(text))


@few
@given(data=st.data())
def test_what_is_impossible_is_minus_infinity_everywhere(case, lm, data):
    check_impossible(lm, data.draw(case.texts), b"a\x00", tolerance=case.tolerance)


def test_the_empty_text_has_probability_one_and_an_end(case, lm):
    assert lm.start().logprob == 0.0
    assert lm.score_with_end(b"").shape == (1,)
    assert float(lm.score_with_end(b"")[0]) < 0


def test_an_unknown_special_symbol_is_named(case, lm):
    with pytest.raises(BytelmError, match="no_such_symbol"):
        lm.start(b"", context=["no_such_symbol"])


def test_bits_per_byte_of_nothing_is_an_error(case, lm):
    with pytest.raises(BytelmError, match="empty"):
        lm.bits_per_byte(b"")


def test_contexts_may_be_spelled_in_several_ways(case, lm):
    ways = (b"se", [b"s", b"e"], (b"s", b"", b"e"))
    expected = lm.start(context=b"se").logprobs()
    for way in ways:
        assert_close(case, lm.start(context=way).logprobs(), expected)
    rows = lm.start_batch([b""] * 4, context=[None, *ways]).logprobs()
    assert_close(case, rows[0], lm.start().logprobs())
    assert_close(case, rows[2], expected)
    scores = lm.score_batch_with_end([b"a", b"a"], context=[None, b"se"])
    assert_close(case, scores[1], lm.score_with_end(b"a", context=[b"se"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm: lm.start("text"), "prompt is bytes, not str: encode it"),
        (lambda lm: lm.score("text"), "text is bytes, not str"),
        (lambda lm: lm.start_batch(b"ab"), "sequence of prompts"),
        (lambda lm: lm.start(context="name"), "not the str 'name'"),
        (lambda lm: lm.start(context=[3]), "context is bytes, not int"),
        (lambda lm: lm.start_batch([b""], context=b"x"), "one context per prompt"),
        (lambda lm: lm.start_batch([b""], context=[b"x"] * 2), "2 contexts for 1 prompts"),
    ],
)
def test_what_is_not_bytes_is_refused_with_advice(call, message):
    with pytest.raises(BytelmError, match=message):
        call(ngram())
