"""The contract of every causal model: causal, cached == parallel, rows independent.

All in float64 on one thread, so that "equal" can mean 1e-10 and "unchanged" can mean exactly.
"""

from functools import partial

import pytest
import torch

from bytelm.arch.base import Decoder
from bytelm.data import Batch
from bytelm.vocab import BYTES
from tests.arch.cases import cases_of, make, texty_ids

EVERY = pytest.mark.parametrize("name", cases_of("causal"))
L = 40


def logits_of(model, ids, **fields):
    with torch.no_grad():
        return model(Batch(ids=ids, **fields)).logits


@EVERY
def test_changing_a_byte_never_changes_earlier_logits(name):
    model, ids = make(name), texty_ids(1, L)
    before = logits_of(model, ids)
    for t in range(1, L, 3):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 101) % BYTES
        after = logits_of(model, changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


@EVERY
def test_no_gradient_flows_back_from_a_later_byte(name):
    model, ids = make(name), texty_ids(1, 24)
    rows = []
    for table in (part for part in model.modules() if isinstance(part, torch.nn.Embedding)):
        if any(parameter.requires_grad for parameter in table.parameters()):  # not frozen
            table.register_forward_hook(lambda module, args, out: rows.append((args[0], out)))
    logits = model(Batch(ids=ids)).logits
    for t in (0, 7, 22):
        loss, outputs = logits[0, t].square().sum(), [out for _, out in rows]
        grads = torch.autograd.grad(loss, outputs, retain_graph=True)
        by_position = [g for g, (read, _) in zip(grads, rows, strict=True) if read.shape == (1, 24)]
        assert by_position
        assert not any(grad[0, t + 1 :].any() for grad in by_position)
        # a learned vector may stand for the BOS
        assert t == 0 or any(grad[0, t].any() for grad in by_position)


@EVERY
def test_prefill_then_steps_equal_the_forward_pass_for_every_split(name):
    model, ids = make(name), texty_ids(2, L)
    full = logits_of(model, ids)
    with torch.no_grad():
        for k in range(1, L):
            lengths = torch.tensor([k, k])
            logits, state = model.prefill(ids[:, :k], lengths, model.init_state(2))
            assert (logits - full[:, k - 1]).abs().max() < 1e-10
            for t in range(k, min(k + 5, L) if 4 < k < L - 6 else L):
                logits, state = model.step(ids[:, t], state)
                assert (logits - full[:, t]).abs().max() < 1e-10


@EVERY
def test_extending_gives_the_forward_pass_at_every_position(name):
    """In ragged pieces, by the architecture's own way and by the one that every model has."""
    model, ids = make(name), texty_ids(2, L)
    full = logits_of(model, ids)
    with torch.no_grad():
        _, begun = model.prefill(ids[:, :9], torch.tensor([9, 5]), model.init_state(2))
        rows = torch.stack((ids[0, 9:21], ids[1, 5:17]))
        lengths = torch.tensor([12, 7])
        for extend in (model.extend, partial(Decoder.extend, model)):
            logits, state = extend(rows, lengths, begun)
            assert (logits[0] - full[0, 9:21]).abs().max() < 1e-10
            assert (logits[1, :7] - full[1, 5:12]).abs().max() < 1e-10
            logits, _ = model.step(torch.stack((ids[0, 21], ids[1, 12])), state)
            assert (logits - torch.stack((full[0, 21], full[1, 12]))).abs().max() < 1e-10


@EVERY
def test_steps_alone_equal_the_forward_pass(name):
    model, ids = make(name), texty_ids(3, L, seed=1)
    full, state = logits_of(model, ids), model.init_state(3)
    with torch.no_grad():
        for t in range(L):
            logits, state = model.step(ids[:, t], state)
            assert (logits - full[:, t]).abs().max() < 1e-10


@EVERY
def test_ragged_prefills_in_pieces_equal_the_forward_pass(name):
    model, ids = make(name), texty_ids(3, L, seed=2)
    full = logits_of(model, ids)
    at, state = torch.zeros(3, dtype=torch.long), model.init_state(3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        while int(at.max()) + 6 < L:
            lengths = torch.randint(1, 7, (3,), generator=generator)
            piece = torch.stack([ids[b, at[b] : at[b] + 6] for b in range(3)])
            logits, state = model.prefill(piece, lengths, state)
            at = at + lengths
            assert (logits - full[torch.arange(3), at - 1]).abs().max() < 1e-10


@EVERY
def test_a_row_alone_equals_the_row_in_a_ragged_batch(name):
    model, ids = make(name), texty_ids(3, L)
    lengths = torch.tensor([L, 17, 3])
    together = logits_of(model, ids, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = logits_of(model, ids[b : b + 1, :n])
        assert (together[b, :n] - alone[0]).abs().max() < 1e-10


@EVERY
def test_what_stands_in_the_padding_does_not_matter(name):
    model, ids = make(name), texty_ids(2, L)
    lengths = torch.tensor([L, 11])
    targets = torch.where(torch.arange(L) < lengths[:, None], ids, -100)
    other = ids.clone()
    other[1, 11:] = 65
    first = model(Batch(ids=ids, targets=targets, lengths=lengths))
    second = model(Batch(ids=other, targets=targets, lengths=lengths))
    assert torch.allclose(first.loss, second.loss, atol=1e-12)
    for key, value in first.aux.items():
        assert torch.allclose(value, second.aux[key], atol=1e-12)
    for key, value in first.stats.items():
        assert abs(float(value) - float(second.stats[key])) < 1e-12


@EVERY
def test_packed_documents_equal_separate_ones_in_any_order(name):
    model = make(name)
    pieces = [texty_ids(1, n, seed=n)[0] for n in (5, 19, 2, 14)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        packed = torch.cat([pieces[i] for i in order])[None]
        documents = torch.cat([torch.full((len(pieces[i]),), k) for k, i in enumerate(order)])[None]
        together = logits_of(model, packed, document_ids=documents)[0]
        parts = together.split([len(pieces[i]) for i in order])
        for i, part in zip(order, parts, strict=True):
            assert (part - logits_of(model, pieces[i][None])[0]).abs().max() < 1e-10


@EVERY
def test_old_states_stay_valid_when_they_are_continued_twice(name):
    model, ids = make(name), texty_ids(2, 12)
    full = logits_of(model, ids)
    with torch.no_grad():
        state = model.init_state(2)
        for t in range(6):
            _, state = model.step(ids[:, t], state)
        wrong = (ids[:, 6:] + 50) % BYTES
        fork = state
        for t in range(6):
            _, fork = model.step(wrong[:, t], fork)
        for t in range(6, 12):
            logits, state = model.step(ids[:, t], state)
            assert (logits - full[:, t]).abs().max() < 1e-10


@EVERY
def test_selected_rows_continue_as_before(name):
    model, ids = make(name), texty_ids(3, 20)
    full = logits_of(model, ids)
    with torch.no_grad():
        _, state = model.prefill(ids[:, :9], torch.tensor([9, 9, 9]), model.init_state(3))
        rows = torch.tensor([2, 0, 2])
        chosen = state.select(rows)
        for t in range(9, 20):
            logits, chosen = model.step(ids[rows, t], chosen)
            assert (logits - full[rows, t]).abs().max() < 1e-10
            logits, state = model.step(ids[:, t], state)
            assert (logits - full[:, t]).abs().max() < 1e-10
