"""Chunk plans, smoothing and ratio loss against loops and closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.chunking import ChunkPlan, confidence_ste, ratio_loss, smooth, upsample

flags = st.lists(st.booleans(), min_size=1, max_size=30)


@given(row=flags, slots=st.sampled_from([1, 4, 32]))
def test_a_plan_repeats_each_chunk_over_its_own_bytes(row, slots):
    starts = torch.tensor([[True, *row]])
    plan = ChunkPlan(starts, slots=slots)
    lengths, feeds = [], []
    for flag in starts[0].tolist():
        lengths += [0] * flag
        lengths[-1] += 1
        feeds.append(len(lengths) - 1)
    assert plan.feeds.tolist() == plan.reads.tolist() == [feeds]
    assert int(plan.counts[0]) == len(lengths) <= plan.width
    assert sum(lengths) == starts.shape[1]
    x = torch.arange(starts.shape[1], dtype=torch.float64)[None, :, None]
    chosen = plan.select(x)[0, : len(lengths), 0].tolist()
    assert chosen == starts[0].nonzero()[:, 0].tolist()
    up = upsample(plan.select(x), plan.reads, torch.full((1, 1), -1.0, dtype=torch.float64))
    assert up[0, :, 0].tolist() == [chosen[m] for m in feeds]


def test_positions_before_the_first_start_read_the_initial_value():
    plan = ChunkPlan(torch.tensor([[False, False, True], [False, False, False]]))
    z = plan.select(torch.ones(2, 3, 1))
    up = upsample(z, plan.reads, torch.tensor([[7.0], [8.0]]))
    assert up[..., 0].tolist() == [[7, 7, 1], [8, 8, 8]]


def naive_average(z, p, initial, documents):
    p = p.clamp(1e-4, 1 - 1e-4)
    value, out = initial, []
    for j in range(z.shape[1]):
        if documents is not None and j:
            value = value * (documents[:, j] == documents[:, j - 1])[:, None]
        value = p[:, j, None] * z[:, j] + (1 - p[:, j, None]) * value
        out.append(value)
    return torch.stack(out, 1)


@pytest.mark.parametrize("cut", [False, True])
def test_smoothing_is_the_moving_average(cut):
    torch.manual_seed(0)
    z = torch.randn(3, 150, 7, dtype=torch.float64)
    p = torch.rand(3, 150, dtype=torch.float64)
    p[:, ::7] = 1.0
    initial = torch.randn(3, 7, dtype=torch.float64)
    documents = torch.randint(0, 5, (3, 150)).sort(1).values if cut else None
    ours = smooth(z, p, initial_BD=initial, document_ids=documents)
    assert (ours - naive_average(z, p, initial, documents)).abs().max() < 1e-12


def test_certain_boundaries_almost_copy():
    z = torch.randn(1, 9, 4, dtype=torch.float64)
    assert (smooth(z, torch.ones(1, 9, dtype=torch.float64)) - z).abs().max() < 1e-3


@pytest.mark.parametrize("target", [2.0, 3.0, 6.0])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_ratio_loss_and_its_gradient(target, share):
    p = torch.full((1, 8), share, dtype=torch.float64, requires_grad=True)
    starts = (torch.arange(8) < round(8 * share))[None]
    result = ratio_loss(p, starts, None, target)
    N, F, G = target, share, share
    expected = N / (N - 1) * ((N - 1) * F * G + (1 - F) * (1 - G))
    assert float(result.loss.detach()) == pytest.approx(expected, abs=1e-12)
    (grad,) = torch.autograd.grad(result.loss, p)
    assert grad.sum().item() == pytest.approx(N / (N - 1) * (N * F - 1), abs=1e-12)


def test_the_ratio_loss_at_its_landmarks():
    def diagonal(value, target):
        p = torch.full((1, 60), value, dtype=torch.float64)
        starts = (torch.arange(60) < round(60 * value))[None]
        return float(ratio_loss(p, starts, None, target).loss)

    assert diagonal(1 / 6, 6.0) == pytest.approx(1)
    assert diagonal(1.0, 6.0) == pytest.approx(6)
    assert diagonal(0.0, 6.0) == pytest.approx(6 / 5)


def test_padding_is_left_out_of_the_ratio_loss():
    p = torch.tensor([[1.0, 0.2, 0.9, 0.9]], dtype=torch.float64)
    starts = torch.tensor([[True, False, False, False]])
    valid = torch.tensor([[True, True, False, False]])
    short = ratio_loss(p[:, :2], starts[:, :2], None, 4.0)
    padded = ratio_loss(p, starts, valid, 4.0)
    assert float(padded.loss) == pytest.approx(float(short.loss))
    assert float(padded.F) == 0.5 and float(padded.G) == pytest.approx(0.6)


def test_confidence_is_one_forward_and_the_chosen_probability_backward():
    p = torch.tensor([[0.9, 0.2]], dtype=torch.float64, requires_grad=True)
    c = confidence_ste(p, torch.tensor([[True, False]]))
    assert torch.equal(c.detach(), torch.ones(1, 2, dtype=torch.float64))
    (grad,) = torch.autograd.grad(c.sum(), p)
    assert grad.tolist() == [[1.0, -1.0]]
