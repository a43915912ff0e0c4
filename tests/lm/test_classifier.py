"""Encoders as classifiers: probabilities, padding, loading, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bytelm
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError, CheckpointError
from bytelm.lm.classifier import Classifier
from bytelm.lm.native import NativeLM
from bytelm.lm.seq2seq import Seq2SeqLM
from tests.arch.cases import LABELS, make
from tests.lm.contract import t5, transformer
from tests.lm.runs import save_run

CLASSIFIER = Classifier(make("encoder"), window=20)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6))
def test_each_text_gets_what_it_would_get_alone(texts):
    found = CLASSIFIER.predict(texts)
    assert found.shape == (len(texts), len(LABELS)) and found.dtype == torch.float64
    for text, row in zip(texts, found, strict=True):
        assert float(row.sum()) == pytest.approx(1, abs=1e-12)
        assert torch.allclose(row, CLASSIFIER.predict([text])[0], atol=1e-14)
        if text:
            ids = torch.tensor([list(text[:20])])
            expected = CLASSIFIER.model(Batch(ids=ids)).logits.softmax(-1)[0]
            assert torch.allclose(row, expected, atol=1e-14)


def test_many_texts_are_read_in_several_batches(monkeypatch):
    texts = [bytes([i]) * (i % 25) for i in range(50)]
    before = CLASSIFIER.predict(texts)
    monkeypatch.setattr("bytelm.lm.classifier.BATCH_POSITIONS", 30)
    assert torch.allclose(CLASSIFIER.predict(texts), before, atol=1e-14)


def test_a_run_of_an_encoder_is_loaded_with_its_labels(tmp_path):
    run = save_run(CLASSIFIER, tmp_path / "run", arch="encoder")
    try:
        loaded = bytelm.load_classifier(run)
        assert loaded.labels == LABELS and loaded.window == 64
        texts = [b"one", b"", b"three" * 3]
        assert torch.allclose(loaded.predict(texts), CLASSIFIER.predict(texts), atol=1e-5)
        with pytest.raises(BytelmError, match="bytelm classify"):
            bytelm.load(run)
    finally:
        CLASSIFIER.model.double()


def test_a_run_of_an_encoder_decoder_is_loaded_as_a_byte_model(tmp_path):
    lm = t5()
    run = save_run(lm, tmp_path / "run", arch="t5", objective="seq2seq")
    loaded = bytelm.load(run)
    assert isinstance(loaded, Seq2SeqLM) and loaded.window == 63
    first, second = (loaded.start(context=c).logprobs() for c in (b"one", b"another"))
    assert not torch.equal(first, second)
    with pytest.raises(BytelmError, match="only encoders classify"):
        bytelm.load_classifier(run)


def test_families_are_not_taken_for_one_another(tmp_path):
    with pytest.raises(BytelmError, match="encoder family"):
        NativeLM(CLASSIFIER.model, window=8)
    with pytest.raises(BytelmError, match="reads no source"):
        Seq2SeqLM(transformer().model, window=8)
    with pytest.raises(BytelmError, match="use bytelm.load"):
        Classifier(transformer().model, window=8)
    with pytest.raises(CheckpointError, match="not a run directory"):
        bytelm.load_classifier(tmp_path / "none")


@pytest.mark.parametrize("wrong", [b"one text", "text", ["text"], [3]])
def test_only_sequences_of_byte_strings_are_classified(wrong):
    with pytest.raises(BytelmError, match="byte strings"):
        CLASSIFIER.predict(wrong)
