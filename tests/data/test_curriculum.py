"""The curriculum cuts rows shorter; it neither adds, drops nor reorders a target."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import IGNORE, Batch, Corpus, Windows
from bytelm.data.curriculum import cut_rows, row_length
from bytelm.vocab import END, ByteVocab

BOS = ByteVocab().bos


@given(
    documents=st.lists(st.binary(max_size=40), min_size=1, max_size=8),
    policy=st.sampled_from(["concat", "pack", "document"]),
    length=st.sampled_from([1, 2, 3, 4, 6, 12]),
    epoch=st.integers(0, 2),
)
def test_cut_rows_hold_the_same_targets_in_the_same_order(documents, policy, length, epoch):
    folder = Path(tempfile.mkdtemp())
    files = [folder / str(i) for i in range(len(documents))]
    for file, data in zip(files, documents, strict=True):
        file.write_bytes(data)
    windows = Windows(Corpus.open(files), length=12, policy=policy, seed=1)
    batch = windows.batch(range(windows.count), epoch=epoch)
    cut = cut_rows(batch, length=length)
    assert cut.targets[cut.targets != IGNORE].tolist() == (
        batch.targets[batch.targets != IGNORE].tolist()
    )
    assert cut.raw_bytes == batch.raw_bytes and cut.ids.shape[1] == length
    lengths = [length] * len(cut.ids) if cut.lengths is None else cut.lengths.tolist()
    for row, n in enumerate(lengths):
        targets = cut.targets[row, :n].tolist()
        assert n > 0 and IGNORE not in targets
        assert (cut.targets[row, n:] == IGNORE).all()
        expected = [BOS] + [BOS if t == END else t for t in targets[:-1]]
        assert cut.ids[row, :n].tolist() == expected
    if cut.document_ids is not None:
        steps = cut.document_ids.diff(dim=1)
        assert (steps == (cut.targets[:, :-1] == END).long()).all()


@pytest.mark.parametrize(("done", "length"), [(0.0, 64), (0.29, 64), (0.3, 256), (0.99, 1024)])
def test_a_stage_begins_at_its_share_of_training(done, length):
    assert row_length([[0.0, 64], [0.3, 256], [0.8, 1024]], done=done) == length


def test_cut_rows_keep_the_label_and_the_source_of_their_row():
    ids = torch.arange(16).view(2, 8)
    batch = Batch(
        ids=ids,
        targets=ids + 1,
        lengths=torch.tensor([8, 3]),
        labels=torch.tensor([5, 6]),
        source=Batch(ids=torch.tensor([[1], [2]])),
    )
    cut = cut_rows(batch, length=2)
    assert cut.labels.tolist() == [5, 5, 5, 5, 6, 6]
    assert cut.source.ids.flatten().tolist() == [1, 1, 1, 1, 2, 2]
