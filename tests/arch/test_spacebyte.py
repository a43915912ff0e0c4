"""What is special to SpaceByte: where its global blocks run, and what follows for odd texts."""

import sys

import pytest
import torch
from pydantic import ValidationError

from bytelm.arch.spacebyte import SpaceByte, SpaceByteConfig
from bytelm.data import Batch
from bytelm.errors import BytelmError
from bytelm.nn.segments import Segments
from bytelm.vocab import ByteVocab, TokenVocab
from tests.arch.cases import CASES, default_dtype, make, texty_ids

ODD = [b"", b" " * 30, b"a" * 30, bytes(30), b"\xff\xfe\x80\x80\xc3" * 6, "中文字".encode() * 3]


def rows_of(text):
    return torch.tensor([[ByteVocab().bos, *text]])


def test_chunks_start_where_the_released_code_runs_its_global_blocks():
    """Its condition, written out over all pairs of byte values, and the BOS."""
    model = make("spacebyte")
    for first in range(256):
        ids = torch.tensor([[ByteVocab().bos, first, second] for second in range(256)])
        (starts,) = model.chunk_boundaries(ids)
        spacelike = [
            b < 48 or 57 < b < 65 or 90 < b < 97 or 122 < b < 128 or b >= 192 for b in range(256)
        ]
        assert starts[:, 0].all()
        assert starts[:, 2].tolist() == [s and not spacelike[first] for s in spacelike]


def test_with_one_byte_per_chunk_it_is_three_flat_transformers():
    """The same blocks without a plan: the middle stack over all bytes, added to what it saw."""
    with default_dtype(torch.float64):
        torch.manual_seed(0)
        settings = {**CASES["spacebyte"][1], "boundaries": "fixed", "stride": 1}
        model = SpaceByte(SpaceByteConfig(**settings), ByteVocab()).eval()
    ids, body = texty_ids(2, 30), model.backbone
    segments = Segments(30)
    with torch.no_grad():
        encoded = body.encoder(model.embeddings(ids), segments)
        zeros = encoded.new_zeros(2, 30, 48 - 32)
        flat = body.main_network(torch.cat((zeros, encoded), dim=-1), segments)[..., 48 - 32 :]
        expected = model.lm_head(body.decoder(encoded + flat, segments))
        assert torch.equal(model(Batch(ids=ids)).logits, expected)


@pytest.mark.parametrize("name", ["spacebyte", "spacebyte-words"])
@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_decoded_as_in_parallel(name, text):
    model, ids = make(name), rows_of(text)
    with torch.no_grad():
        full = model(Batch(ids=ids)).logits
        _, state = model.prefill(ids[:, :1], torch.tensor([1]), model.init_state(1))
        stepper = model.stepper(state, 1)
        for t in range(1, ids.shape[1]):
            assert (stepper.step([int(ids[0, t])]) - full[:, t]).abs().max() < 1e-10


def positions_fed(stack, monkeypatch):
    """Counts the positions that a stack is stepped over, row by row, from now on."""
    fed, step = [], stack.step
    monkeypatch.setattr(stack, "step", lambda x, rows: (fed.append(len(x)), step(x, rows))[1])
    return fed


def test_the_global_blocks_run_once_per_chunk_of_each_row(monkeypatch):
    model, ids = make("spacebyte"), texty_ids(3, 60, seed=3)
    stepper = model.stepper(model.init_state(3), 3)
    fed = positions_fed(stepper._body._inner, monkeypatch)
    for t in range(60):
        stepper.step(ids[:, t].tolist())
    assert sum(fed) == stepper.chunks == int(model.chunk_boundaries(ids)[0].sum())
    assert len(set(fed)) > 1, "rows start chunks at different times"


@pytest.mark.parametrize("slots", [1, 7])
@pytest.mark.parametrize("name", ["spacebyte", "megabyte"])
def test_how_chunk_slots_are_rounded_changes_no_number(name, slots, monkeypatch):
    model, ids = make(name), texty_ids(2, 40)
    lengths = torch.tensor([40, 11])
    with torch.no_grad():
        expected = model(Batch(ids=ids, lengths=lengths)).logits
        monkeypatch.setattr(sys.modules[type(model).__module__], "_SLOTS", slots)
        found = model(Batch(ids=ids, lengths=lengths)).logits
    assert (found[0] - expected[0]).abs().max() < 1e-12
    assert (found[1, :11] - expected[1, :11]).abs().max() < 1e-12


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="d_local 300 must not exceed d_model 256"):
        SpaceByteConfig(d_local=300, local_heads=3)
    with pytest.raises(ValidationError, match="stride = 4 has no effect: boundaries = 'space'"):
        SpaceByteConfig(stride=4)
    with pytest.raises(BytelmError, match="spacebyte cuts bytes"):
        SpaceByte(SpaceByteConfig(), TokenVocab(300, 256, 257, 258, "0"))
