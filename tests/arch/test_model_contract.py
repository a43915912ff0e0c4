"""What holds for every registered architecture, whatever its family."""

from dataclasses import replace

import pytest
import torch

from bytelm.arch.base import CausalModel, EncoderModel, Hierarchical, Seq2SeqModel
from bytelm.registry import ARCHITECTURES
from tests.arch.cases import CASES, make, training_batch

EVERY = pytest.mark.parametrize("name", sorted(CASES))
FAMILIES = {"causal": CausalModel, "seq2seq": Seq2SeqModel, "encoder": EncoderModel}


def test_every_registered_architecture_has_a_case():
    assert set(ARCHITECTURES.names()) == {arch for arch, _ in CASES.values()}


@EVERY
def test_an_architecture_is_of_the_family_it_names(name):
    model = make(name)
    assert [f for f, kind in FAMILIES.items() if isinstance(model, kind)] == [model.family]


@EVERY
def test_a_batch_without_anything_to_learn_has_no_loss(name):
    model = make(name)
    batch = replace(training_batch(model), targets=None, labels=None)
    assert model(batch).loss is None


@EVERY
def test_forward_changes_neither_its_batch_nor_the_model(name):
    model = make(name)
    batch, again = training_batch(model), training_batch(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        first, second = model(batch).logits, model(batch).logits
    assert torch.equal(first, second)
    assert torch.equal(batch.ids, again.ids) and torch.equal(batch.lengths, again.lengths)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@EVERY
def test_every_parameter_gets_a_finite_gradient(name):
    model = make(name).train()
    output = model(training_batch(model))
    (output.loss + sum(output.aux.values())).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@EVERY
def test_roles_never_decay_vectors_and_know_every_parameter(name):
    model = make(name)
    for key, parameter in model.named_parameters():
        role = model.parameter_role(key, parameter)
        assert not (role.decay and parameter.ndim <= 1), key
        assert role.kind != "matrix" or parameter.ndim == 2, key


@EVERY
def test_flops_per_byte_follow_the_weight_matrices(name):
    model = make(name)
    ids = training_batch(model).ids
    if not (isinstance(model, Hierarchical) and model.chunk_boundaries(ids)):
        # no chunks: every matrix works every byte
        matrices = sum(
            p.numel() for key, p in model.named_parameters() if p.ndim == 2 and "embed" not in key
        )
        assert model.flops_per_byte(1) == pytest.approx(2 * matrices, rel=0.35)
    assert model.flops_per_byte(4096) >= model.flops_per_byte(1) > 0
