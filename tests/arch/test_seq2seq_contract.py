"""The contract of every sequence-to-sequence model.

The decoder is causal, the source is seen whole and its padding not at all, steps equal the forward
pass, and rows of a decode state (with sources of any length) can be forked, selected and joined.
All in float64 on one thread, as in the causal contract.
"""

import pytest
import torch

from bytelm.data import Batch
from bytelm.errors import BytelmError
from tests.arch.cases import cases_of, make, texty_ids

EVERY = pytest.mark.parametrize("name", cases_of("seq2seq"))
L, M = 24, 17
SOURCES = torch.tensor([M, 5, 0])


def source_of(rows=3, *, seed=9, lengths=SOURCES):
    return Batch(ids=texty_ids(rows, M, seed=seed), lengths=lengths)


@torch.no_grad()
def logits_of(model, ids, source, **fields):
    return model(Batch(ids=ids, source=source, **fields)).logits


@torch.no_grad()
def started(model, source):
    return model.init_state(model.encode(source))


def row(source, b):
    """Row b of a source, alone and without padding."""
    n = int(source.lengths[b])
    return Batch(ids=source.ids[b : b + 1, : max(1, n)], lengths=torch.tensor([n]))


def gap(a, b):
    """The largest difference; an id without a row of the table has -inf in both."""
    return torch.where(a == b, 0.0, (a - b).abs()).max()


@EVERY
def test_changing_a_byte_never_changes_earlier_logits(name):
    model, ids, source = make(name), texty_ids(1, L), row(source_of(), 0)
    before = logits_of(model, ids, source)
    for t in range(1, L, 3):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 101) % 256
        after = logits_of(model, changed, source)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


@EVERY
def test_every_byte_of_the_source_reaches_every_position(name):
    model, ids, source = make(name), texty_ids(1, L), row(source_of(), 0)
    before = logits_of(model, ids, source)
    for t in range(M):
        changed = source.ids.clone()
        changed[0, t] = (changed[0, t] + 101) % 256
        after = logits_of(model, ids, Batch(ids=changed, lengths=source.lengths))
        assert (after != before)[0].any(dim=-1).all()


@EVERY
def test_padding_of_the_source_changes_nothing(name):
    model, ids, source = make(name), texty_ids(3, L), source_of()
    before = logits_of(model, ids, source)
    other = torch.where(torch.arange(M) < SOURCES[:, None], source.ids, 65)
    assert torch.equal(logits_of(model, ids, Batch(ids=other, lengths=SOURCES)), before)
    wider = torch.nn.functional.pad(source.ids, (0, 13), value=7)
    after = logits_of(model, ids, Batch(ids=wider, lengths=SOURCES))
    assert gap(after, before) < 1e-12


@EVERY
def test_a_row_alone_equals_the_row_in_a_ragged_batch(name):
    model, ids, source = make(name), texty_ids(3, L), source_of()
    lengths = torch.tensor([11, L, 3])
    together = logits_of(model, ids, source, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = logits_of(model, ids[b : b + 1, :n], row(source, b))
        assert gap(together[b, :n], alone[0]) < 1e-10
    assert not together.isnan().any()


@EVERY
def test_prefill_then_steps_equal_the_forward_pass_for_every_split(name):
    model, ids, source = make(name), texty_ids(3, L), source_of()
    full = logits_of(model, ids, source)
    with torch.no_grad():
        for k in range(1, L):
            state = started(model, source)
            logits, state = model.prefill(ids[:, :k], torch.full((3,), k), state)
            assert gap(logits, full[:, k - 1]) < 1e-10
            for t in range(k, min(k + 4, L)):
                logits, state = model.step(ids[:, t], state)
                assert gap(logits, full[:, t]) < 1e-10


@EVERY
def test_ragged_prefills_in_pieces_equal_the_forward_pass(name):
    model, ids, source = make(name), texty_ids(3, L, seed=2), source_of()
    full = logits_of(model, ids, source)
    at, state = torch.zeros(3, dtype=torch.long), started(model, source)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        while int(at.max()) + 5 < L:
            lengths = torch.randint(1, 6, (3,), generator=generator)
            piece = torch.stack([ids[b, at[b] : at[b] + 5] for b in range(3)])
            logits, state = model.prefill(piece, lengths, state)
            at = at + lengths
            assert gap(logits, full[torch.arange(3), at - 1]) < 1e-10


@EVERY
def test_old_states_stay_valid_when_they_are_continued_twice(name):
    model, ids, source = make(name), texty_ids(3, 12), source_of()
    full = logits_of(model, ids, source)
    with torch.no_grad():
        _, state = model.prefill(ids[:, :6], torch.full((3,), 6), started(model, source))
        fork = state
        for t in range(6):
            _, fork = model.step((ids[:, 6 + t] + 50) % 256, fork)
        for t in range(6, 12):
            logits, state = model.step(ids[:, t], state)
            assert gap(logits, full[:, t]) < 1e-10


@EVERY
def test_selected_rows_continue_as_before(name):
    model, ids, source = make(name), texty_ids(3, 20), source_of()
    full, rows = logits_of(model, ids, source), torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        _, state = model.prefill(ids[:, :9], torch.tensor([9, 9, 9]), started(model, source))
        chosen = state.select(rows)
        for t in range(9, 20):
            logits, chosen = model.step(ids[rows, t], chosen)
            assert gap(logits, full[rows, t]) < 1e-10


@EVERY
def test_rows_are_put_back_beside_those_of_another_source(name):
    model, ids, source = make(name), texty_ids(3, 12), source_of()
    full = logits_of(model, ids, source)
    with torch.no_grad():
        short = Batch(ids=source.ids[:, :2], lengths=torch.tensor([2, 1, 1]))
        _, state = model.prefill(ids[:, :4], torch.full((3,), 4), started(model, short))
        for b in range(3):
            _, alone = model.prefill(
                ids[b : b + 1, :7], torch.tensor([7]), started(model, row(source, b))
            )
            state = state.scatter(torch.tensor([b]), alone)
        for t in range(7, 12):
            logits, state = model.step(ids[:, t], state)
            assert gap(logits, full[:, t]) < 1e-10


@EVERY
def test_states_with_sources_of_any_length_join(name):
    model, ids, source = make(name), texty_ids(3, 20), source_of()
    full = logits_of(model, ids, source)
    with torch.no_grad():
        states = []
        for b, n in enumerate((4, 9, 1)):
            alone = started(model, row(source, b))
            states.append(model.prefill(ids[b : b + 1, :n], torch.tensor([n]), alone)[1])
        joined = states[0].join(states[1:])
        for t in range(9):
            at = torch.tensor([4, 9, 1]) + t
            logits, joined = model.step(ids[torch.arange(3), at], joined)
            assert gap(logits, full[torch.arange(3), at]) < 1e-10


@EVERY
def test_a_batch_without_a_source_or_with_packed_rows_is_refused(name):
    model, ids = make(name), texty_ids(3, L)
    with pytest.raises(BytelmError, match="has no source"):
        model(Batch(ids=ids))
    with pytest.raises(BytelmError, match="one pair"):
        model(Batch(ids=ids, source=source_of(), document_ids=torch.zeros_like(ids)))
