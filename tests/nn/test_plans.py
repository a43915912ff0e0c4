"""The laws of chunk plans, over random bytes and every rule, for both kinds of pooler.

Causality: which chunk a byte reads, and what that chunk holds, depends on no later byte. Stability:
the plan of a prefix is the prefix of the plan.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.chunking import ChunkPlan, starts_on_bytes, upsample
from bytelm.nn.pooling import FirstByte, Mean
from bytelm.nn.segments import Segments
from tests.nn.cuts import (
    NAMES,
    TEXTS,
    D,
    cut_bytes,
    cut_whole,
    make_rule,
    stretch_of,
    vectors,
)

POOLERS = st.sampled_from([FirstByte(), Mean()])
NOTHING = torch.full((1, D), -9.0, dtype=torch.float64)


def plan_of(name, text, pooler, documents=None, **options):
    segments = Segments(len(text), None, documents)
    cuts = cut_bytes(name, text, segments)
    return ChunkPlan(
        cuts.starts, delay=pooler.delay, document_ids=documents, ends=cuts.ends, **options
    )


def read_of(text, plan, pooler):
    """(L, D): what each byte of one text reads."""
    pooled = pooler.pool(vectors(torch.tensor([list(text)])), plan)
    return upsample(pooled, plan.reads, NOTHING)[0]


@given(name=NAMES, text=TEXTS, pooler=POOLERS, slots=st.sampled_from([1, 8]))
def test_bytes_feed_chunks_in_order_and_read_by_the_poolers_delay(name, text, pooler, slots):
    plan = plan_of(name, text, pooler, slots=slots)
    feeds = plan.feeds[0].tolist()
    assert feeds[0] == 0 and all(b - a in (0, 1) for a, b in zip(feeds, feeds[1:], strict=False))
    assert int(plan.counts[0]) == feeds[-1] + 1 <= plan.width <= len(text)
    ends = [False] * len(text) if plan.ends is None else plan.ends[0].tolist()
    lag = [max(0, pooler.delay - end) for end in ends]
    assert plan.reads[0].tolist() == [max(k - j, -1) for k, j in zip(feeds, lag, strict=True)]
    ones = torch.ones(1, len(text), 1, dtype=torch.float64)
    lengths = plan.sum(ones)[0, : feeds[-1] + 1, 0].tolist()
    assert lengths == [feeds.count(k) for k in range(feeds[-1] + 1)]


@given(name=NAMES, text=TEXTS, other=TEXTS, pooler=POOLERS, data=st.data())
def test_what_a_byte_reads_depends_on_no_later_byte(name, text, other, pooler, data):
    n = data.draw(st.integers(1, len(text)))
    changed = text[:n] + other
    plans = [plan_of(name, t, pooler) for t in (text, changed)]
    assert torch.equal(plans[0].reads[:, :n], plans[1].reads[:, :n])
    before, after = (
        read_of(t, plan, pooler) for t, plan in zip((text, changed), plans, strict=True)
    )
    assert torch.equal(before[:n], after[:n])


def test_a_pooled_chunk_read_before_it_closes_would_see_the_future():
    class Leaky(Mean):
        delay = 0

    read = [read_of(t, plan_of("space", t, Leaky()), Leaky())[:2] for t in (b"abc d", b"abx d")]
    assert not torch.equal(*read)


@given(name=NAMES, text=TEXTS, pooler=POOLERS, data=st.data())
def test_the_plan_of_a_prefix_is_the_prefix_of_the_plan(name, text, pooler, data):
    n = data.draw(st.integers(1, len(text)))
    whole, prefix = plan_of(name, text, pooler), plan_of(name, text[:n], pooler)
    for part in ("starts", "feeds", "reads"):
        assert torch.equal(getattr(whole, part)[:, :n], getattr(prefix, part))


@given(name=NAMES, texts=st.lists(TEXTS, min_size=2, max_size=3), pooler=POOLERS)
def test_packed_documents_read_what_they_read_alone(name, texts, pooler):
    documents = torch.tensor([[k for k, text in enumerate(texts) for _ in text]])
    packed = b"".join(texts)
    plan = plan_of(name, packed, pooler, documents)
    inside = plan.segments()
    assert inside.document_ids is not None and int(inside.lengths[0]) == int(plan.counts[0])
    together = read_of(packed, plan, pooler).split([len(text) for text in texts])
    for text, part in zip(texts, together, strict=True):
        alone = read_of(text, plan_of(name, text, pooler), pooler)
        assert (part - alone).abs().max() < 1e-12


@given(texts=st.tuples(TEXTS, TEXTS), name=NAMES, pooler=POOLERS)
def test_padding_changes_nothing_that_valid_bytes_read(texts, name, pooler):
    text = max(texts, key=len)
    n = len(min(texts, key=len))
    lengths = torch.tensor([n])
    padded = cut_bytes(name, text, Segments(len(text), lengths))
    plan = ChunkPlan(padded.starts, delay=pooler.delay, ends=padded.ends, lengths=lengths)
    alone = read_of(text[:n], plan_of(name, text[:n], pooler), pooler)
    assert torch.equal(read_of(text, plan, pooler)[:n], alone)


def test_the_mean_of_a_chunk_is_that_of_its_bytes():
    text = b"one two, three"
    plan = plan_of("space", text, Mean())
    pooled = Mean().pool(vectors(torch.tensor([list(text)])), plan)[0]
    words = [b"one", b" two", b", three"]
    for k, word in enumerate(words):
        expected = vectors(torch.tensor([list(word)]))[0].mean(0)
        assert (pooled[k] - expected).abs().max() < 1e-12


@given(name=NAMES, texts=st.tuples(TEXTS, TEXTS))
def test_the_members_of_chunks_are_their_bytes_and_find_back_to_them(name, texts):
    L, counts = max(map(len, texts)), torch.tensor([len(text) for text in texts])
    ids = torch.tensor([[*text, *bytes(L)][:L] for text in texts])
    cuts = cut_whole(make_rule(name), stretch_of(ids, Segments(L, counts)))
    plan = ChunkPlan(cuts.starts, lengths=counts, slots=4)
    members = plan.members()
    gathered = members.gather(ids)
    for b, text in enumerate(texts):
        places = zip(gathered[b], plan.sizes[b], strict=True)
        chunks = [bytes(row[:size].tolist()) for row, size in places]
        n = int(plan.counts[b])
        assert b"".join(chunks[:n]) == text and not any(chunks[n:])
        assert plan.offsets[b, : len(text)].tolist() == [
            i for chunk in chunks[:n] for i in range(len(chunk))
        ]
        assert bytes(members.spread(gathered)[b, : len(text)].tolist()) == text


@given(name=NAMES, text=TEXTS)
def test_a_known_end_is_followed_by_a_start(name, text):
    cuts = cut_bytes(name, text)
    if cuts.ends is not None:
        assert torch.equal(cuts.ends[:, :-1], cuts.starts[:, 1:])


@given(name=NAMES, texts=st.lists(TEXTS, min_size=1, max_size=3), pooler=POOLERS)
def test_readers_are_the_bytes_that_read_one_chunk_of_their_document(name, texts, pooler):
    documents = torch.tensor([[k for k, text in enumerate(texts) for _ in text]])
    plan = plan_of(name, b"".join(texts), pooler, documents)
    pairs = list(zip(plan.reads[0].tolist(), documents[0].tolist(), strict=True))
    expected = [i == 0 or pair != pairs[i - 1] for i, pair in enumerate(pairs)]
    assert plan.readers.starts[0].tolist() == expected


def test_a_chunk_whose_end_is_known_is_read_from_that_byte_on():
    starts = torch.tensor([[True, True, False, True, False]])
    ends = torch.tensor([[True, False, True, False, True]])
    plan = ChunkPlan(starts, delay=1, ends=ends)
    assert plan.reads.tolist() == [[0, 0, 1, 1, 2]]
    assert plan.readers.starts.tolist() == [[True, False, True, False, True]]


def test_the_maximum_of_a_chunk_is_that_of_its_bytes():
    x = torch.tensor([[[-3.0], [-1], [-2], [5], [4], [9]]], requires_grad=True)
    starts = torch.tensor([[True, False, False, True, False, False]])
    plan = ChunkPlan(starts, lengths=torch.tensor([5]), slots=4)
    pooled = plan.max(x)
    assert pooled[0, :, 0].tolist() == [-1, 5, 0, 0]
    pooled.sum().backward()
    assert x.grad[0, :, 0].tolist() == [0, 1, 0, 1, 0, 0]


def test_rows_without_a_start_read_nothing():
    plan = ChunkPlan(torch.tensor([[False, False], [False, True]]), delay=1)
    assert plan.reads.tolist() == [[-1, -1], [-1, -1]]
    none = ChunkPlan(torch.zeros(1, 2, dtype=torch.bool), document_ids=torch.zeros(1, 2).long())
    assert none.width == 0 and none.reads.tolist() == [[-1, -1]]


@pytest.mark.parametrize("inner", [[[True, False, True]], [[True, True, True]]])
def test_starts_of_inner_stages_are_found_again_on_the_bytes(inner):
    outer = torch.tensor([[True, False, True, False, True]])
    found = starts_on_bytes([ChunkPlan(outer), ChunkPlan(torch.tensor(inner))])
    expected = [False] * 5
    for place, flag in zip((0, 2, 4), inner[0], strict=True):
        expected[place] = flag
    assert torch.equal(found[0], outer) and found[1].tolist() == [expected]
