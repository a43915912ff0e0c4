"""The chunked SSD and the short convolution against plain recurrences, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.conv import causal_conv_silu
from bytelm.nn.ssd import ssd, ssd_step


def problem(seed, b=2, L=77, H=4, P=5, N=6, G=2):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    dt = torch.rand(b, L, H, generator=g, dtype=torch.float64)
    A = -4 * torch.rand(H, generator=g, dtype=torch.float64)
    documents = torch.randint(0, 4, (b, L), generator=g).sort(dim=1).values
    inputs = (normal(b, L, H, P), dt, A, normal(b, L, G, N), normal(b, L, G, N))
    return inputs, normal(b, H, P, N), documents


def recurrence(x, dt, A, B, C, state, documents=None):
    """y and final state by the definition, one position at a time."""
    per_group = x.shape[2] // B.shape[2]
    B, C = B.repeat_interleave(per_group, 2), C.repeat_interleave(per_group, 2)
    ys = []
    for t in range(x.shape[1]):
        if documents is not None and t:
            state = state * (documents[:, t] == documents[:, t - 1])[:, None, None, None]
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        write = torch.einsum("bhp,bhn->bhpn", x[:, t] * dt[:, t, :, None], B[:, t])
        state = decay * state + write
        ys.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]))
    return torch.stack(ys, 1), state


@pytest.mark.parametrize("chunk", [1, 16, 32, 64, 128])
@pytest.mark.parametrize("cut", [False, True])
def test_the_chunk_size_changes_nothing(chunk, cut):
    inputs, start, documents = problem(0)
    documents = documents if cut else None
    y, final = recurrence(*inputs, start, documents)
    result = ssd(*inputs, chunk=chunk, state_BHPN=start, document_ids=documents)
    assert (result.y - y).abs().max() < 1e-11
    assert (result.state - final).abs().max() < 1e-11


@given(split=st.integers(1, 76), seed=st.integers(0, 5))
def test_a_split_with_carried_state_changes_nothing(split, seed):
    inputs, start, _ = problem(seed)
    x, dt, A, B, C = inputs
    whole = ssd(*inputs, chunk=16, state_BHPN=start)
    left = (x[:, :split], dt[:, :split], A, B[:, :split], C[:, :split])
    right = (x[:, split:], dt[:, split:], A, B[:, split:], C[:, split:])
    first = ssd(*left, chunk=16, state_BHPN=start)
    second = ssd(*right, chunk=32, state_BHPN=first.state)
    assert (torch.cat((first.y, second.y), 1) - whole.y).abs().max() < 1e-11
    assert (second.state - whole.state).abs().max() < 1e-11


def test_a_step_is_the_recurrence():
    (x, dt, A, B, C), start, _ = problem(1, L=1)
    y, final = recurrence(x, dt, A, B, C, start)
    kept = start.clone()
    result = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], start)
    assert (result.y - y[:, 0]).abs().max() < 1e-12
    assert (result.state - final).abs().max() < 1e-12
    assert torch.equal(start, kept)


@pytest.mark.parametrize("cut", [False, True])
def test_gradients_agree_with_the_recurrence(cut):
    inputs, start, documents = problem(2, b=1, L=23)
    documents = documents[:, :23] if cut else None
    leaves = [t.clone().requires_grad_() for t in (*inputs, start)]
    weights = torch.randn(1, 23, 4, 5, dtype=torch.float64)
    expected = torch.autograd.grad(
        (recurrence(*leaves, documents)[0] * weights).sum(), leaves, retain_graph=False
    )
    y = ssd(*leaves[:5], chunk=16, state_BHPN=leaves[5], document_ids=documents).y
    grads = torch.autograd.grad((y * weights).sum(), leaves)
    for ours, theirs in zip(grads, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


def test_strong_decays_give_finite_gradients():
    inputs, _, _ = problem(3)
    leaves = [t.clone().float().requires_grad_() for t in inputs]
    y = ssd(leaves[0], 50 * leaves[1], *leaves[2:], chunk=64).y
    for grad in torch.autograd.grad(y.square().sum(), leaves):
        assert grad.isfinite().all()


def naive_conv(u, weight, bias, documents):
    K = weight.shape[1]
    out = bias.expand_as(u).clone()
    for t in range(u.shape[1]):
        for k in range(min(K, t + 1)):
            same = (documents[:, t - k] == documents[:, t])[:, None]
            out[:, t] += weight[:, K - 1 - k] * u[:, t - k] * same
    return torch.nn.functional.silu(out)


@pytest.mark.parametrize("cut", [False, True])
def test_the_convolution_and_its_written_out_gradient(cut):
    torch.manual_seed(0)
    u = torch.randn(2, 15, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    documents = torch.randint(0, 3, (2, 15)).sort(1).values if cut else torch.zeros(2, 15)
    ours = causal_conv_silu(u, weight, bias, document_ids=documents if cut else None)
    expected = naive_conv(u, weight, bias, documents)
    assert (ours - expected).abs().max() < 1e-12
    scale = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * scale).sum(), (u, weight, bias)),
        torch.autograd.grad((expected * scale).sum(), (u, weight, bias)),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-11


def test_the_convolution_reads_its_tail():
    torch.manual_seed(0)
    u = torch.randn(2, 15, 3, dtype=torch.float64)
    weight, bias = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    whole = causal_conv_silu(u, weight, bias)
    part = causal_conv_silu(u[:, 6:], weight, bias, tail=u[:, 3:6])
    assert (whole[:, 6:] - part).abs().max() < 1e-12
