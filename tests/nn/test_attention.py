"""Attention against the textbook formula; windows in forward and in decoding; the cache."""

import math

import pytest
import torch

from bytelm.nn.attention import AttentionOptions, SelfAttention
from bytelm.nn.cache import KVCache
from bytelm.nn.norms import RMSNorm
from bytelm.nn.rope import rotary_tables, rotate
from bytelm.nn.segments import Segments


def attention(window=-1, rotary_dim=4, qk_norm=False):
    torch.manual_seed(0)
    options = AttentionOptions(heads=2, rotary_dim=rotary_dim, window=window, qk_norm=qk_norm)
    return SelfAttention(16, options).double()


def naive(layer, x):
    """Loops over heads and positions, complex rotations."""
    L, H, K = x.shape[0], layer.options.heads, layer.head_dim
    q, k, v = (layer.Wqkv.weight @ x.T).T.view(L, 3, H, K).unbind(1)
    half = layer.options.rotary_dim // 2
    frequency = layer.options.base ** (-torch.arange(half).double() / half)
    out = torch.zeros(L, H, K, dtype=x.dtype)

    def turn(vector, t):
        z = torch.complex(vector[:half], vector[half : 2 * half]) * torch.exp(1j * t * frequency)
        return torch.cat((z.real, z.imag, vector[2 * half :]))

    for h in range(H):
        for t in range(L):
            first = 0 if layer.options.window < 0 else max(0, t - layer.options.window)
            keys = [turn(k[j, h], j) for j in range(first, t + 1)]
            scores = torch.stack([turn(q[t, h], t) @ key for key in keys]) / math.sqrt(K)
            out[t, h] = scores.softmax(0) @ v[first : t + 1, h]
    return out.flatten(1) @ layer.out_proj.weight.T


@pytest.mark.parametrize("window", [-1, 0, 1, 3, 5, 50])
def test_attention_is_the_textbook_formula_for_every_window(window):
    layer = attention(window)
    x = torch.randn(1, 23, 16, dtype=torch.float64)
    with torch.no_grad():
        assert (layer(x, Segments(23))[0] - naive(layer, x[0])).abs().max() < 1e-12


@pytest.mark.parametrize("window", [1, 3])
def test_a_key_outside_the_window_changes_nothing_forward_and_in_steps(window):
    layer = attention(window)
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    other = x.clone()
    other[0, 5] += 1
    with torch.no_grad():
        change = (layer(x, Segments(20)) - layer(other, Segments(20)))[0].abs().sum(-1)
        steps = []
        for rows in (x, other):
            cache, outs = layer.init_state(1), []
            for t in range(20):
                y, cache = layer.extend(rows[:, t : t + 1], None, cache)
                outs.append(y[0, 0])
            steps.append(torch.stack(outs))
    step_change = (steps[0] - steps[1]).abs().sum(-1)
    for found in (change, step_change):
        assert (found[5 : 6 + window] > 0).all()
        assert not found[:5].any() and not found[6 + window :].any()


def test_rotation_keeps_inner_products_relative_and_its_gradient_is_exact():
    q, k = torch.randn(2, 8, dtype=torch.float64)

    def at(vector, t):
        cos, sin = rotary_tables(torch.tensor([t]), 6, base=100.0, dtype=torch.float64)
        return rotate(vector[None], cos, sin)[0]

    assert torch.isclose(at(q, 9) @ at(k, 4), at(q, 25) @ at(k, 20))
    cos, sin = rotary_tables(torch.arange(5), 6, base=100.0, dtype=torch.float64)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: rotate(t, cos, sin), (x,))


@pytest.mark.parametrize("groups", [1, 2])
def test_rms_norm_and_its_gradient(groups):
    norm = RMSNorm(8, groups=groups).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    parts = x.unflatten(-1, (groups, -1))
    expected = parts / (parts.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    assert torch.allclose(norm(x), expected.flatten(-2) * norm.weight)
    assert torch.autograd.gradcheck(norm, (x,))


def fill(cache, value, count=None):
    new = torch.full((len(cache.lengths), 1, 2, 3), float(value))
    return cache.append(new, new, count)


def contents(cache):
    keys, _ = cache.read()
    return [keys[b, 0, : int(n), 0].tolist() for b, n in enumerate(cache.lengths)]


def new_cache(rows):
    return KVCache.empty(rows, 1, 3, dtype=torch.float32, device=torch.device("cpu"))


def test_appending_twice_to_the_same_cache_copies_and_keeps_both():
    first = fill(new_cache(2), 1)
    left, right = fill(first, 2), fill(first, 3)
    assert contents(first) == [[1, 1], [1, 1]]
    assert contents(left) == [[1, 1, 2, 2]] * 2
    assert contents(right) == [[1, 1, 3, 3]] * 2
    assert left.storage is first.storage and right.storage is not first.storage


def test_a_view_of_some_rows_appends_in_place_and_scatters_back():
    cache = fill(new_cache(3), 1)
    part = fill(cache.view(torch.tensor([2, 0])), 5, torch.tensor([1, 2]))
    merged = cache.scatter(torch.tensor([2, 0]), part)
    assert contents(merged) == [[1, 1, 5, 5], [1, 1], [1, 1, 5]]
    assert merged.storage is cache.storage
    assert contents(cache) == [[1, 1]] * 3
    late = cache.scatter(torch.tensor([0]), fill(cache.view(torch.tensor([0])), 7))
    assert contents(late) == [[1, 1, 7, 7], [1, 1], [1, 1]]
    assert contents(merged) == [[1, 1, 5, 5], [1, 1], [1, 1, 5]]


def test_a_long_history_is_not_copied_at_every_step():
    cache, storages = new_cache(1), set()
    for t in range(500):
        cache = fill(cache, t, torch.tensor([1]))
        storages.add(id(cache.storage))
    assert len(storages) <= 6
    assert contents(cache) == [[float(t) for t in range(500)]]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("lengths", [None, [29, 11]])
def test_blocks_equal_the_dense_mask(causal, window, packed, lengths, monkeypatch):
    torch.manual_seed(0)
    options = AttentionOptions(heads=2, rotary_dim=4, window=window, causal=causal)
    layer = SelfAttention(8, options).double()
    x = torch.randn(2, 29, 8, dtype=torch.float64)
    documents = torch.arange(29).expand(2, -1) // torch.tensor([[5], [30]]) if packed else None
    valid = None if lengths is None else torch.tensor(lengths)

    def outputs():
        segments = Segments(29, valid, documents)
        y = layer(x, segments)
        return y if segments.valid is None else y[segments.valid]

    blocks = outputs()
    monkeypatch.setattr("bytelm.nn.attention._blockwise", dense)
    assert (blocks - outputs()).abs().max() < 1e-12
    (grad,) = torch.autograd.grad(blocks.sum(), layer.Wqkv.weight)
    assert grad.isfinite().all()


def dense(q, k, v, segments, window, *, causal):
    mask = segments.attention_mask(window, q.device, causal=causal)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
