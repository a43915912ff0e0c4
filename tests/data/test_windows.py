"""Windows: each byte of the corpus is a target exactly once an epoch, in any policy."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import IGNORE, Corpus, Windows
from bytelm.errors import DataError
from bytelm.vocab import END, ByteVocab

BOS = ByteVocab().bos
DOCUMENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=8)


def open_documents(documents: list[bytes]) -> Corpus:
    folder = Path(tempfile.mkdtemp())
    paths = [folder / str(i) for i in range(len(documents))]
    for path, data in zip(paths, documents, strict=True):
        path.write_bytes(data)
    return Corpus.open(paths)


def causal_stream(documents: list[bytes]) -> list[int]:
    return [symbol for data in documents for symbol in (*data, END)]


@given(documents=DOCUMENTS, length=st.integers(1, 17))
def test_concat_windows_in_order_are_the_stream(documents, length):
    windows = Windows(open_documents(documents), length=length, shuffle=False)
    batch = windows.batch(range(windows.count), epoch=0)
    valid = batch.targets[batch.targets != IGNORE].tolist()
    assert valid == causal_stream(documents)
    assert batch.raw_bytes == sum(map(len, documents))


@given(
    documents=DOCUMENTS,
    length=st.integers(1, 17),
    policy=st.sampled_from(["concat", "pack", "document", "bucket"]),
    epoch=st.integers(0, 3),
)
def test_every_symbol_is_a_target_once_an_epoch(documents, length, policy, epoch):
    windows = Windows(open_documents(documents), length=length, policy=policy, seed=5)
    batch = windows.batch(range(windows.count), epoch=epoch)
    valid = batch.targets[batch.targets != IGNORE].tolist()
    assert Counter(valid) == Counter(causal_stream(documents))


@given(
    documents=DOCUMENTS,
    length=st.integers(1, 17),
    policy=st.sampled_from(["concat", "pack", "document", "bucket"]),
)
def test_inputs_are_the_shifted_targets_with_bos_at_each_start(documents, length, policy):
    windows = Windows(open_documents(documents), length=length, policy=policy)
    batch = windows.batch(range(windows.count), epoch=0)
    lengths = (
        [batch.ids.shape[1]] * windows.count if batch.lengths is None else batch.lengths.tolist()
    )
    for row, n in enumerate(lengths):
        ids, targets = batch.ids[row, :n].tolist(), batch.targets[row, :n].tolist()
        expected = [BOS] + [BOS if t == END else t for t in targets[:-1]]
        assert ids == expected
        assert IGNORE not in targets and END not in ids
        assert (batch.targets[row, n:] == IGNORE).all()


@given(documents=DOCUMENTS, length=st.integers(1, 17))
def test_document_ids_change_exactly_after_an_end(documents, length):
    windows = Windows(open_documents(documents), length=length)
    batch = windows.batch(range(windows.count), epoch=0)
    if batch.document_ids is None:
        assert len(documents) == 1
        return
    steps = batch.document_ids.diff(dim=1)
    assert torch.equal(steps, (batch.targets[:, :-1] == END).long())


@given(documents=DOCUMENTS, length=st.integers(1, 17))
def test_rows_of_the_document_policy_never_hold_two_documents(documents, length):
    windows = Windows(open_documents(documents), length=length, policy="document", shuffle=False)
    assert windows.count == sum(-(-(len(d) + 1) // length) for d in documents)
    targets = windows.batch(range(windows.count), epoch=0).targets
    ends = (targets == END).sum(dim=1)
    assert ends.max() <= 1 and ends.sum() == len(documents)


@given(documents=DOCUMENTS, length=st.integers(1, 50))
def test_packing_cuts_no_document_that_fits(documents, length):
    windows = Windows(open_documents(documents), length=length, policy="pack", shuffle=False)
    rows = windows.batch(range(windows.count), epoch=0).targets.tolist()
    packed = Counter()
    for row in rows:
        text = [t for t in row if t != IGNORE]
        while END in text:
            cut = text.index(END)
            packed[bytes(text[:cut])] += 1
            text = text[cut + 1 :]
    whole = Counter(d for d in documents if len(d) < length)
    assert whole <= packed
    # Best fit is never worse than a row for each piece, nor better than the total length.
    positions = sum(len(d) + 1 for d in documents)
    pieces = sum(-(-(len(d) + 1) // length) for d in documents)
    assert -(-positions // length) <= windows.count <= pieces


def test_packing_fills_the_gaps_that_fit(corpus_of):
    corpus = corpus_of([b"a" * 6, b"b" * 5, b"c" * 2, b"d" * 3])  # 7, 6, 3, 4 positions
    assert Windows(corpus, length=10, policy="pack").count == 2


def test_records_stay_whole(corpus_of):
    corpus = corpus_of([bytes(range(12)), bytes(range(100, 108))])
    windows = Windows(corpus, length=8, policy="record", record_size=4, shuffle=False)
    rows = windows.batch(range(windows.count), epoch=0).targets
    starts = [int(row[0]) for row in rows]
    assert starts == [0, 8, 100, END]


def test_a_broken_record_is_refused(corpus_of):
    with pytest.raises(DataError, match="document 1 has 5 bytes"):
        Windows(corpus_of([b"1234", b"12345"]), length=8, policy="record", record_size=4)
    with pytest.raises(DataError, match="multiple of record_size"):
        Windows(corpus_of([b"1234"]), length=6, policy="record", record_size=4)
    with pytest.raises(DataError, match="belongs to the policy"):
        Windows(corpus_of([b"1234"]), length=8, record_size=4)


def test_an_unknown_policy_names_the_nearest(corpus_of):
    with pytest.raises(DataError, match="did you mean 'concat'"):
        Windows(corpus_of([b"x"]), length=4, policy="conkat")


def test_each_epoch_has_its_own_order_and_the_same_rows(corpus_of):
    windows = Windows(corpus_of([bytes(range(256))]), length=8, seed=1)
    first, second = (windows.batch(range(windows.count), epoch=e).targets for e in (0, 1))
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())


def test_the_fingerprint_names_all_the_order_depends_on(corpus_of):
    corpus = corpus_of([b"abc"])
    marks = {
        Windows(corpus, length=4).fingerprint,
        Windows(corpus, length=5).fingerprint,
        Windows(corpus, length=4, seed=1).fingerprint,
        Windows(corpus, length=4, policy="pack").fingerprint,
        Windows(corpus, length=4, shuffle=False).fingerprint,
        Windows(corpus, length=4, policy="bucket").fingerprint,
        Windows(corpus, length=4, policy="bucket", bucket_rows=2).fingerprint,
    }
    assert len(marks) == 7
    assert Windows(corpus, length=4).fingerprint == Windows(corpus, length=4).fingerprint


def test_windows_of_a_huge_sparse_file_are_made_at_once(tmp_path):
    path, size = tmp_path / "sparse", 5 << 30
    with path.open("wb") as stream:
        stream.seek(size - 3)
        stream.write(b"end")
    windows = Windows(Corpus.open(path), length=8192, shuffle=False)
    assert windows.count == size // 8192 + 1
    last = windows.batch([windows.count - 2], epoch=0).targets[0]
    assert bytes(last[-4:].tolist()) == b"\0end"
    shuffled = Windows(windows.corpus, length=8192, seed=1).batch(range(64), epoch=3)
    assert shuffled.raw_bytes == 64 * 8192


def test_windows_survive_being_sent_to_another_process(corpus_of):
    import pickle

    windows = Windows(corpus_of([b"some text", b"more"]), length=4, seed=2)
    sent = pickle.loads(pickle.dumps(windows))
    assert len(pickle.dumps(windows)) < 3000
    assert torch.equal(
        sent.batch(range(4), epoch=0).targets, windows.batch(range(4), epoch=0).targets
    )
    assert np.array_equal(sent.corpus.offsets, windows.corpus.offsets)
