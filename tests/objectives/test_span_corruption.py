"""Span corruption: ByT5's sizes and sentinels, nothing lost, every cut equally likely."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import IGNORE, Corpus, Windows
from bytelm.errors import DataError
from bytelm.nn.tables import id_map
from bytelm.objectives import Setup
from bytelm.objectives.span_corruption import SpanCorruption, restore
from bytelm.vocab import BYTES, END, ByteVocab


def objective(**settings) -> SpanCorruption:
    return SpanCorruption(SpanCorruption.Config(**settings), Setup(seed=3))


@given(st.binary(max_size=300), st.integers(0, 99), st.sampled_from([(0.15, 20.0), (0.5, 3.0)]))
def test_source_and_target_together_are_the_text(data, sample, shape):
    noise, span = shape
    made = objective(noise=noise, span=span, sentinels=256)
    ids = np.frombuffer(data, np.uint8).astype(np.int64)
    source, target = made.corrupt(ids, sample=sample)
    assert restore(source, target, first=264) == data
    if len(data) > 1:
        assert source[0] < BYTES <= source[-1] and target[0] == 264
    wanted, spans = made.sizes(len(data))
    assert len(target) == wanted + spans and len(source) == len(data) - wanted + spans


def test_a_context_of_1024_is_that_of_byt5(tmp_path):
    made = objective()
    assert made.window_length(1024) == 1193
    assert made.source_length(1193) == 1024 and made.source_length(1194) > 1024
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    windows = Windows(Corpus.open(tmp_path / "a.bin"), length=1193, shuffle=False)
    batch = made.batch(windows, np.arange(2))
    assert batch.source.ids.shape == (2, 1023)  # and EOS, which the model adds
    assert batch.targets.shape == (2, 189) and (batch.targets[:, -1] == END).all()
    assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1]) and batch.raw_bytes == 2 * 179
    vocab = ByteVocab(sentinels=32)
    rows = id_map("byt5", vocab).rows_of(batch.targets[0])
    assert [row for row in rows[batch.targets[0] >= 264].tolist()] == list(range(258, 249, -1))


def test_cuts_are_random_compositions():
    made = objective(noise=0.5, span=2)  # 8 bytes: 4 + 4 in 2 spans each: 3 * 3 ways
    data = np.arange(8)
    seen = Counter(tuple(made.corrupt(data, sample=n)[0].tolist()) for n in range(3600))
    assert len(seen) == 9 and min(seen.values()) > 320


def test_documents_are_joined_and_the_ends_do_not_count(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "' + "a" * 30 + '"}\n{"text": "' + "b" * 30 + '"}')
    windows = Windows(Corpus.open(tmp_path / "a.jsonl"), length=62, shuffle=False)
    made = objective(span=4)
    batch = made.batch(windows, np.arange(1))
    text = restore(
        batch.source.ids[0].numpy(), batch.targets[0][batch.targets[0] != END].numpy(), first=264
    )
    assert text == b"a" * 30 + b"b" * 30
    judged = made.heldout_objective().batch(windows, np.arange(1))
    kept = judged.targets[judged.targets != IGNORE]
    assert len(kept) == batch.raw_bytes == 9 and (kept < BYTES).all()


def test_rows_without_room_are_refused():
    with pytest.raises(DataError, match="no room"):
        objective().window_length(2)
    with pytest.raises(DataError, match=r"9 spans: raise objective.sentinels \(8\)"):
        objective(sentinels=8).window_length(1024)
