"""What is special to MegaByte: patches, the local model that begins anew with each, odd texts."""

import pytest
import torch
from pydantic import ValidationError

from bytelm.arch.megabyte import MegaByteConfig
from bytelm.data import Batch
from bytelm.nn.segments import Segments
from tests.arch.cases import make, texty_ids
from tests.arch.test_spacebyte import ODD, positions_fed, rows_of


@torch.no_grad()
def logits_by_hand(model, ids):
    """The paper's figure 2 with loops: patch by patch, and place by place inside each."""
    body, P, text = model.backbone, model.config.patch, ids[0].tolist()
    patches = [body.first_patch]
    for end in range(P, len(text), P):
        symbols = torch.tensor(text[end - P + 1 : end + 1])
        patches.append(torch.cat(tuple(body.patch_embeddings(symbols))))
    x = torch.stack(patches)[None]
    outputs = body.main_network(x, Segments(len(patches)))[0]
    x, found = model._embed(ids)[0], []
    for k, output in enumerate(outputs):
        slices = output.chunk(P)
        places = range(k * P, min((k + 1) * P, len(text)))
        before = [body.first_byte if t % P == 0 else x[t] for t in places]
        inputs = [b + body.slices(slices[t % P]) for b, t in zip(before, places, strict=True)]
        inside = body.decoder(torch.stack(inputs)[None], Segments(len(inputs)))
        found.append(model.lm_head(inside[0]))
    return torch.cat(found)


@pytest.mark.parametrize("patch", [4, 1])
@pytest.mark.parametrize("length", [1, 4, 5, 30])
def test_it_is_the_papers_model_written_with_loops(patch, length):
    model, ids = make("megabyte", patch=patch), texty_ids(1, length)
    with torch.no_grad():
        found = model(Batch(ids=ids)).logits[0]
    assert (found - logits_by_hand(model, ids)).abs().max() < 1e-12


def test_with_one_byte_per_patch_it_is_a_flat_transformer():
    """The global stack over all bytes; what follows it looks at one position alone."""
    model, ids = make("megabyte", patch=1), texty_ids(2, 30)
    body = model.backbone
    with torch.no_grad():
        x = body.patch_embeddings(ids)
        x[:, 0] = body.first_patch
        flat = body.slices(body.main_network(x, Segments(30))) + body.first_byte
        alone = body.decoder(flat.flatten(0, 1)[:, None], Segments(1))
        expected = model.lm_head(alone).view(2, 30, -1)
        assert (model(Batch(ids=ids)).logits - expected).abs().max() < 1e-12


def test_inside_a_patch_nothing_before_it_is_seen_but_through_its_slices():
    """A byte two patches back moves every place of a patch, and with the slices held it moves
    none."""
    model, ids = make("megabyte"), texty_ids(1, 13)
    model.ngrams = None
    other = ids.clone()
    other[0, 2] += 1
    with torch.no_grad():
        moved = model(Batch(ids=ids)).logits - model(Batch(ids=other)).logits
        assert (moved[0, 4:].abs().amax(-1) > 0).all()
        model.backbone.slices.weight.zero_()
        still = model(Batch(ids=ids)).logits - model(Batch(ids=other)).logits
        assert not still[0, 4:].any()


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_decoded_as_in_parallel(text):
    model, ids = make("megabyte"), rows_of(text)
    with torch.no_grad():
        full = model(Batch(ids=ids)).logits
        for known in {0, min(7, len(text))}:
            n = known + 1
            _, state = model.prefill(ids[:, :n], torch.tensor([n]), model.init_state(1))
            stepper = model.stepper(state, 1)
            for t in range(n, ids.shape[1]):
                assert (stepper.step([int(ids[0, t])]) - full[:, t]).abs().max() < 1e-10


def test_every_byte_value_is_an_input_and_a_target_like_any_other():
    """Also 0, which some implementations pad with and leave out of the loss."""
    model, ids = make("megabyte"), rows_of(bytes(6))
    with torch.no_grad():
        output = model(Batch(ids=ids, targets=torch.zeros_like(ids)))
        expected = -output.logits.log_softmax(-1)[..., 0].mean()
    assert (output.loss - expected).abs() < 1e-12
    assert model.backbone.patch_embeddings.weight[0].any()


def test_the_global_blocks_run_once_per_patch_of_each_row(monkeypatch):
    model, ids = make("megabyte"), texty_ids(3, 61, seed=3)
    stepper = model.stepper(model.init_state(3), 3)
    fed = positions_fed(stepper._body._body._inner, monkeypatch)
    for t in range(61):
        stepper.step(ids[:, t].tolist())
    assert sum(fed) == stepper.chunks == 3 * 16  # the BOS and 15 patches of 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="patch 7 must divide d_model 256"):
        MegaByteConfig(patch=7)
