"""Any number of threads finds the same merges, ids and bytes, in bounded memory."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm import threads as threading
from bytelm.errors import BytelmError
from bytelm.tokenizer import BinaryBPE, codec, merge_threads
from bytelm.tokenizer.trainer import train_merges

from .conftest import CORPORA

THREADS = (1, 2, 3, 5)


@pytest.fixture(scope="module")
def bpe() -> BinaryBPE:
    return BinaryBPE.train(list(CORPORA.values()), [1500])[1500]


data = st.one_of(
    st.binary(max_size=200),
    st.text("ab", max_size=200).map(str.encode),
    st.builds(lambda at: CORPORA["executable"][at : at + 900], st.integers(0, 20_000)),
    st.builds(lambda n: bytes(n), st.integers(0, 3000)),  # one token spans many cuts
)


@settings(max_examples=60)
@given(data=data, least=st.integers(1, 50))
def test_one_text_encodes_alike_on_any_number_of_threads(bpe, data, least):
    alone = bpe.encode(data, threads=1)
    with mock.patch.object(codec, "_LEAST_PART", least):
        for threads in THREADS:
            ids = bpe.encode(data, threads=threads)
            assert ids.dtype == np.uint32 and ids.tolist() == alone.tolist()
            assert bpe.decode(ids, threads=threads) == data


def test_a_run_that_one_token_order_decides_is_joined_by_going_far_back():
    """Where a text starts decides how a run of one byte is cut, thousands of tokens on."""
    bpe = BinaryBPE.train([b"aaa" * 50 + b"b"], [265])[265]
    text = b"a" * 5001 + b"b" + b"a" * 4000
    alone = bpe.encode(text, threads=1)
    with mock.patch.object(codec, "_LEAST_PART", 1):
        for threads in THREADS:
            assert bpe.encode(text, threads=threads).tolist() == alone.tolist()


@settings(max_examples=25)
@given(
    documents=st.lists(data, max_size=8),
    group=st.integers(1, 500),
    threads=st.sampled_from(THREADS),
)
def test_documents_encode_alike_and_keep_their_boundaries(bpe, documents, group, threads):
    with mock.patch("bytelm.tokenizer.documents._GROUP", group):
        found = bpe.encode_batch(iter(documents), threads=threads)
        corpus = bpe.encode_corpus(iter(documents), threads=threads)
    assert [ids.tolist() for ids in found] == [
        bpe.encode(document, threads=1).tolist() for document in documents
    ]
    for i, document in enumerate(documents):
        assert bpe.decode(corpus.ids[corpus.offsets[i] : corpus.offsets[i + 1]]) == document


def test_an_unknown_id_is_named_whichever_thread_meets_it(bpe):
    ids = np.concatenate([bpe.encode(CORPORA["executable"][:3000]), [99_999], [7, 8]])
    with mock.patch.object(codec, "_LEAST_PART", 1):
        for threads in THREADS:
            with pytest.raises(BytelmError, match="99999"):
                bpe.decode(ids, threads=threads)


@pytest.mark.parametrize("threads", THREADS)
def test_documents_are_taken_as_they_are_encoded(bpe, threads):
    taken = 0

    def documents():
        nonlocal taken
        for _ in range(60):
            taken += 1
            yield b"error" * 40

    with mock.patch("bytelm.tokenizer.documents._GROUP", 1):
        found = bpe._encoded(documents(), threads)
        next(found)
        assert taken <= 2 * threads + 2
        found.close()


def test_threads_default_to_the_cores_this_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threading.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert threading.thread_count(None) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threading.thread_count(None) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "8,4")
    assert threading.thread_count(None) == 3
    assert threading.thread_count(7) == 7
    with pytest.raises(BytelmError, match="threads must be 1 or more, not 0"):
        threading.thread_count(0)


def test_what_one_thread_raises_is_raised_and_ends_the_rest():
    def work(n: int) -> int:
        return 1 // (n - 3)

    with pytest.raises(ZeroDivisionError):
        list(threading.in_order(work, range(100), threads=3))


@settings(max_examples=40)
@given(
    documents=st.lists(data, min_size=1, max_size=4),
    length=st.sampled_from([7, 64, 8192]),
    threads=st.sampled_from(THREADS[1:]),
    least=st.integers(0, 30),
)
def test_merges_are_those_of_one_thread(documents, length, threads, least):
    if not any(documents):
        return
    rules = {"ids": 330, "piece_length": length}
    alone = train_merges(documents, threads=1, **rules)
    with mock.patch.object(merge_threads, "LEAST", max(least, 1)):
        found = train_merges(documents, threads=threads, **rules)
    assert found.merges.tolist() == alone.merges.tolist()
    assert found.counts.tolist() == alone.counts.tolist()


@pytest.mark.parametrize("threads", THREADS)
def test_merges_of_a_corpus_are_those_of_one_thread(corpus, threads):
    alone = train_merges([corpus], ids=600, threads=1)
    with mock.patch.object(merge_threads, "LEAST", 4):
        found = train_merges([corpus], ids=600, threads=threads)
    assert found.merges.tolist() == alone.merges.tolist()
