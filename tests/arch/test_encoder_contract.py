"""The contract of every encoder: padding is not there, rows are alone, both directions are seen."""

from dataclasses import replace

import pytest
import torch

from bytelm.arch.base import label_loss
from bytelm.data import Batch
from bytelm.data.batch import IGNORE
from bytelm.errors import BytelmError
from bytelm.registry import architecture
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, LABELS, cases_of, make, texty_ids, training_batch

EVERY = pytest.mark.parametrize("name", cases_of("encoder"))
L = 40
LENGTHS = torch.tensor([L, 17, 3, 0])


@torch.no_grad()
def logits_of(model, ids, **fields):
    return model(Batch(ids=ids, **fields)).logits


@EVERY
def test_there_is_one_logit_per_label_and_one_vector_per_position(name):
    model, ids = make(name), texty_ids(4, L)
    batch = Batch(ids=ids, lengths=LENGTHS)
    assert model(batch).logits.shape == (4, len(LABELS))
    assert model.representations(batch).shape[:2] == ids.shape


@EVERY
def test_what_stands_in_the_padding_changes_no_bit(name):
    model, ids = make(name), texty_ids(4, L)
    other = torch.where(torch.arange(L) < LENGTHS[:, None], ids, 65)
    first, second = (logits_of(model, x, lengths=LENGTHS) for x in (ids, other))
    assert torch.equal(first, second)


@EVERY
def test_more_padding_changes_no_bit(name):
    model, ids = make(name), texty_ids(4, L)
    first = logits_of(model, ids, lengths=LENGTHS)
    for extra in (1, 7, 64):
        wider = torch.nn.functional.pad(ids, (0, extra), value=ByteVocab().pad)
        assert torch.equal(logits_of(model, wider, lengths=LENGTHS), first)
    for n in (3, 17, L):
        alone = logits_of(model, ids[:1, :n])
        assert torch.equal(logits_of(model, ids[:1], lengths=torch.tensor([n])), alone)


@EVERY
def test_a_row_alone_equals_the_row_in_a_ragged_batch(name):
    model, ids = make(name), texty_ids(4, L)
    together = logits_of(model, ids, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        if n:
            assert (together[b] - logits_of(model, ids[b : b + 1, :n])[0]).abs().max() < 1e-14
    assert together.isfinite().all()


@EVERY
def test_every_byte_reaches_the_classes_and_all_positions_around_it(name):
    model, ids = make(name), texty_ids(1, 12)
    before, vectors = logits_of(model, ids), model.representations(Batch(ids=ids))
    for t in range(12):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 101) % 256
        assert not torch.equal(logits_of(model, changed), before)
        moved = (model.representations(Batch(ids=changed)) - vectors)[0].abs().sum(-1) > 0
        assert moved[max(0, t - 1) : t + 2].all()


@EVERY
def test_packed_documents_do_not_see_each_other(name):
    model = make(name)
    pieces = [texty_ids(1, n, seed=n)[0] for n in (5, 19, 2)]
    documents = torch.cat([torch.full((len(p),), k) for k, p in enumerate(pieces)])[None]
    with torch.no_grad():
        together = model.representations(Batch(ids=torch.cat(pieces)[None], document_ids=documents))
        for part, piece in zip(together[0].split([5, 19, 2]), pieces, strict=True):
            alone = model.representations(Batch(ids=piece[None]))[0]
            assert (part - alone).abs().max() < 1e-12


@EVERY
def test_rows_without_a_label_carry_no_loss(name):
    model = make(name)
    batch = training_batch(model)
    some = replace(batch, labels=torch.tensor([0, IGNORE, 1]))
    kept = Batch(ids=batch.ids[[0, 2]], lengths=batch.lengths[[0, 2]], labels=torch.tensor([0, 1]))
    assert torch.allclose(model(some).loss, model(kept).loss, atol=1e-12)
    assert float(label_loss(torch.randn(2, 3), torch.full((2,), IGNORE))) == 0


@EVERY
@pytest.mark.parametrize("labels", [(), ("one",), ("twice", "twice")])
def test_labels_must_tell_classes_apart(name, labels):
    cls = architecture(CASES[name][0])
    with pytest.raises(BytelmError, match="at least two labels"):
        cls(cls.Config(**CASES[name][1]), ByteVocab(), labels=labels)
