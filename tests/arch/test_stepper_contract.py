"""The contract of every generating model's stepper: in place it computes what states compute.

In float64, so that "equal" can mean 1e-10; the oracle is the forward pass over the whole text.
"""

from functools import partial

import pytest
import torch

from bytelm.arch.base import Seq2SeqModel
from bytelm.data import Batch
from tests.arch import cases
from tests.arch.cases import cases_of, difference, texty_ids

COMPILED = [f"{name}, compiled" for name in cases_of("causal")]
EVERY = pytest.mark.parametrize("name", cases_of("causal") + cases_of("seq2seq") + COMPILED)
L = 70  # crosses the first room for positions


def make(name):
    """The case's model; "compiled" asks its stepper for kernels."""
    case, _, form = name.partition(", ")
    model = cases.make(case)
    if form:
        assert model.compiles, "every causal case is made of layers with kernels"
        model.stepper = partial(model.stepper, compiled=True)
    return model


def empty_state(model, rows):
    if isinstance(model, Seq2SeqModel):
        return model.init_state(model.encode(source(rows)))
    return model.init_state(rows)


def source(rows):
    return Batch(ids=texty_ids(rows, 7, seed=9), lengths=torch.arange(1, rows + 1))


@torch.no_grad()
def forward(model, ids):
    extra = {"source": source(len(ids))} if isinstance(model, Seq2SeqModel) else {}
    return model(Batch(ids=ids, **extra)).logits


@torch.no_grad()
def started(model, ids, lengths):
    """The model's state after the first lengths[b] ids of each row."""
    lengths = torch.tensor(lengths)
    first = ids[:, : int(lengths.max())]
    return model.prefill(first, lengths, empty_state(model, len(ids)))[1]


def next_ids(ids, at):
    return [int(ids[b, t]) for b, t in enumerate(at)]


@EVERY
@pytest.mark.parametrize("lengths", [[1], [44, 44], [9, 1, 30]])
def test_steps_equal_the_forward_pass_at_every_position(name, lengths):
    model, ids = make(name), texty_ids(len(lengths), L, seed=3)
    full, at = forward(model, ids), list(lengths)
    stepper = model.stepper(started(model, ids, lengths), len(lengths))
    while max(at) < L:
        logits = stepper.step(next_ids(ids, at))
        for b, t in enumerate(at):
            assert difference(logits[b], full[b, t]).max() < 1e-10
        at = [t + 1 for t in at]


@EVERY
def test_a_state_taken_on_the_way_is_that_of_the_immutable_path_and_stays_so(name):
    model, ids = make(name), texty_ids(2, 75, seed=4)
    lengths, taken = [2, 5], []
    first = started(model, ids, lengths)
    stepper, state, at = model.stepper(first, 2), first, list(lengths)
    with torch.no_grad():
        while max(at) < 70:
            fed = next_ids(ids, at)
            stepper.step(fed)
            _, state = model.step(torch.tensor(fed), state)
            at = [t + 1 for t in at]
            if max(at) in (6, 7, 68):
                taken.append((list(at), stepper.state(), state))
        wrong = torch.tensor([65, 66])
        for at, found, expected in [(lengths, first, first), *taken]:
            for fed in (wrong, torch.tensor(next_ids(ids, at))):  # forks of it do not meet
                logits, after = model.step(fed, found)
                again = model.step(fed, after)[0]
                same, after = model.step(fed, expected)
                assert difference(logits, same).max() < 1e-10
                assert difference(again, model.step(fed, after)[0]).max() < 1e-10


@EVERY
def test_rows_that_leave_and_enter_through_states_go_on_as_before(name):
    model, ids = make(name), texty_ids(4, 90, seed=5)
    full, at = forward(model, ids), [4, 1, 7, 2]
    state = started(model, ids, at)
    with torch.no_grad():
        for rows in ([0, 1, 2, 3], [2, 0, 3], [3], [3, 3]):
            stepper = model.stepper(state.select(torch.tensor(rows)), len(rows))
            for _ in range(12):
                logits = stepper.step([int(ids[b, at[b]]) for b in rows])
                for i, b in enumerate(rows):
                    assert difference(logits[i], full[b, at[b]]).max() < 1e-10
                at = [t + (b in rows) for b, t in enumerate(at)]
            order = [rows.index(b) if b in rows else 0 for b in range(4)]
            state = stepper.state().select(torch.tensor(order))


@EVERY
def test_in_float32_both_agree_to_a_hundred_thousandth(name):
    follow(make(name).float(), tolerance=1e-5)


@pytest.mark.parametrize("name", ["transformer", "transformer-window", "mambabyte", "t5"])
def test_in_bfloat16_both_agree_to_its_rounding(name):
    follow(make(name).bfloat16(), tolerance=0.05)


@torch.no_grad()
def follow(model, *, tolerance):
    """Both ways over the same text; differences are relative to the largest logit."""
    ids, at = texty_ids(3, 60, seed=6), [5, 2, 5]
    state = started(model, ids, at)
    stepper = model.stepper(state, 3)
    for _ in range(20):
        fed = next_ids(ids, at)
        expected, state = model.step(torch.tensor(fed), state)
        logits = stepper.step(fed)
        assert logits.dtype == expected.dtype == torch.float32
        largest = expected[expected.isfinite()].abs().max()
        assert difference(logits, expected).max() < tolerance * largest
        at = [t + 1 for t in at]


@pytest.mark.parametrize("name", ["hnet-1stage", "hnet-1stage, compiled"])
def test_weights_that_change_are_read_again(name):
    model, ids = make(name), texty_ids(1, 6)
    model.stepper(started(model, ids, [3]), 1).step([65])
    for parameter in model.parameters():
        parameter.data.add_(0.1)  # which torch's own count of writes does not show
    full = forward(model, ids)
    logits = model.stepper(started(model, ids, [3]), 1).step(next_ids(ids, [3]))
    assert difference(logits[0], full[0, 3]).max() < 1e-10


def test_what_has_no_kernels_says_so():
    assert not cases.make("t5").compiles
    assert not cases.make("transformer").bfloat16().compiles
    model = cases.make("mambabyte")
    model.backbone.main_network.layers[0].mixer.in_proj = torch.nn.Linear(32, 9)  # not ours
    assert not model.compiles
