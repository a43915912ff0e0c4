"""Buckets: every row once an epoch, blocks of one width, batches no wider than their rows need."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import Corpus, Mixture, Windows
from bytelm.data.buckets import Buckets, bucket_widths


@given(
    sizes=st.lists(st.integers(1, 128), min_size=1, max_size=200),
    block=st.integers(1, 9),
    epoch=st.integers(0, 3),
)
def test_the_order_is_a_permutation_in_blocks_of_one_bucket(sizes, block, epoch):
    sizes = np.array(sizes)
    buckets = Buckets(sizes, length=128, block=block)
    order = buckets.rows(np.arange(len(sizes)), key=(0, epoch))
    assert sorted(order.tolist()) == list(range(len(sizes)))
    widths = [min(w for w in bucket_widths(128).tolist() if w >= size) for size in sizes[order]]
    full = sum(count // block for count in Counter(widths).values())
    for b in range(full):
        assert len(set(widths[b * block : (b + 1) * block])) == 1
    rest = widths[full * block :]
    assert rest == sorted(rest) and all(n < block for n in Counter(rest).values())


@given(sizes=st.lists(st.integers(1, 64), min_size=1, max_size=99), data=st.data())
def test_a_place_is_found_without_the_others(sizes, data):
    buckets = Buckets(np.array(sizes), length=64, block=4)
    order = buckets.rows(np.arange(len(sizes)), key=(1, 2))
    some = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=9))
    assert buckets.rows(np.array(some, dtype=np.int64), key=(1, 2)).tolist() == order[some].tolist()


def test_widths_halve_down_to_a_narrowest():
    assert bucket_widths(1024).tolist() == [16, 32, 64, 128, 256, 512, 1024]
    assert bucket_widths(7).tolist() == [7] and bucket_widths(1).tolist() == [1]


@pytest.fixture
def lines(corpus_of) -> Corpus:
    """400 documents, of which most are short."""
    rng = np.random.default_rng(3)
    return corpus_of([bytes(int(n)) for n in rng.geometric(0.02, 400)])


def test_batches_of_a_bucket_are_mostly_bytes(lines):
    padded = {}
    for policy in ("document", "bucket"):
        windows = Windows(lines, length=512, policy=policy, bucket_rows=8, seed=4)
        starts = range(0, windows.count - 7, 8)
        batches = [windows.batch(range(i, i + 8), epoch=1) for i in starts]
        padded[policy] = 1 - sum(b.raw_bytes for b in batches) / sum(b.ids.numel() for b in batches)
    assert padded["document"] > 0.8 and padded["bucket"] < 0.4


def test_epochs_differ_and_a_mixture_takes_buckets_too(lines):
    windows = Windows(lines, length=128, policy="bucket", seed=4)
    every = np.arange(windows.count)
    assert (
        windows.window_numbers(every).tolist()
        != windows.window_numbers(every + windows.count).tolist()
    )
    plain = Windows(lines, length=128, policy="document", seed=4)
    mixture = Mixture([windows, plain], weights=[1, 1])
    source, local = mixture.locate(np.arange(16))
    rows = mixture.rows(np.arange(16))
    for i, (which, sample) in enumerate(zip(source, local, strict=True)):
        single = mixture.sources[which].rows(np.array([sample]))
        n = int(single.lengths[0])
        assert rows.lengths[i] == n
        assert rows.symbols[i, :n].tolist() == single.symbols[0, :n].tolist()
