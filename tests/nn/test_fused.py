"""Compiled loops against the torch code beside them: values, derivatives, layouts, threads.

Every function that has loops is a case here; `tests/nn/test_precision.py` fails on a derivative
written by hand that is in no list.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bytelm.nn import conv, decay, fused, gated_norm, heads, mlp, norms, rope
from bytelm.nn.norms import RMSNorm

Case = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def numbers(*shape: int, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def norm_case() -> Case:
    return lambda x, w: norms.rms_norm(x, w, 1e-5), (numbers(3, 2, 5), numbers(5))


def swiglu_case() -> Case:
    return mlp.gated, (numbers(2, 3, 8),)


def convolution_case(documents: Tensor | None = None) -> Case:
    def convolve(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv.causal_conv_silu(u, weight, bias, document_ids=documents)

    return convolve, (numbers(2, 6, 3), numbers(3, 4), numbers(3))


def documents_case() -> Case:
    return convolution_case(torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 3, 3, 4]]))


def gate_case() -> Case:
    def gate(y: Tensor, x: Tensor, D: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        norm = RMSNorm(6)
        del norm.weight
        norm.weight = weight  # an input of the case, so that its derivative is checked
        return gated_norm.gated_norm(y, x, D, z, norm)

    shapes = ((2, 3, 2, 3), (2, 3, 2, 3), (2,), (2, 3, 6), (6,))
    return gate, tuple(numbers(*shape) for shape in shapes)


def heads_case(positions: Tensor | None, rotary_dim: int, qk_norm: bool) -> Case:
    def split(qkv: Tensor) -> Tensor:
        angles = None
        if positions is not None:
            angles = rope.rotary_tables(positions, rotary_dim, base=100.0, dtype=qkv.dtype)
        return torch.stack(heads.split_heads(qkv, 2, angles, qk_norm=qk_norm))

    return split, (numbers(2, 5, 36),)


def decay_case() -> Case:
    def decays(products: Tensor, steps: Tensor) -> Tensor:
        inside = decay.causal(5, products.device)
        return decay.decayed(products, -steps.square().cumsum(-1), inside)

    return decays, (numbers(2, 3, 1, 5, 5), numbers(2, 3, 1, 4, 5))


CASES: dict[str, Callable[[], Case]] = {
    "norm": norm_case,
    "swiglu": swiglu_case,
    "convolution": convolution_case,
    "convolution-documents": documents_case,
    "gated-norm": gate_case,
    "decay": decay_case,
    "heads": lambda: heads_case(torch.arange(5), 6, True),
    "heads-partial": lambda: heads_case(torch.arange(5), 4, True),
    "heads-rows": lambda: heads_case(torch.stack([torch.arange(5), torch.arange(3, 8)]), 6, False),
    "heads-plain": lambda: heads_case(None, 0, True),
}
FUNCTIONS = {
    norms._RMSNorm,
    mlp._Gated,
    conv._ConvSiLULoop,
    gated_norm._GatedNorm,
    decay._Decayed,
    heads._Heads,
}


def outcome(call: Callable[..., Tensor], inputs: tuple[Tensor, ...], how: fused.Implementation):
    """Value and gradients of a fixed random functional."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with fused.using(how):
        value = call(*leaves)
        weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(5))
        gradients = torch.autograd.grad((value * weight.to(value.dtype)).sum(), leaves)
    return [value.detach(), *gradients]


@pytest.mark.parametrize("name", CASES)
def test_loops_give_the_values_and_gradients_of_the_torch_code(name):
    torch.manual_seed(0)
    call, inputs = CASES[name]()
    loops, plain = outcome(call, inputs, "loops"), outcome(call, inputs, "torch")
    torch.testing.assert_close(loops, plain, rtol=1e-11, atol=1e-11)
    single = tuple(x.float() for x in inputs)
    torch.testing.assert_close(
        outcome(call, single, "loops"), [x.float() for x in plain], rtol=3e-5, atol=3e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_both_derivatives_of_the_loops_are_right(name):
    torch.manual_seed(0)
    call, inputs = CASES[name]()
    leaves = tuple(x.requires_grad_() for x in inputs)
    with fused.using("loops"):
        assert torch.autograd.gradcheck(call, leaves)
        assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("name", CASES)
def test_parts_of_wider_rows_and_turned_ones_are_read_where_they_lie(name):
    torch.manual_seed(0)
    call, inputs = CASES[name]()
    wide = tuple(torch.cat((x, x + 1), dim=-1)[..., : x.shape[-1]] for x in inputs)
    turned = tuple(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs)
    expected = outcome(call, inputs, "torch")
    for odd in (wide, turned):
        torch.testing.assert_close(outcome(call, odd, "loops"), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_threads_changes_nothing_but_the_order_of_sums(name, monkeypatch):
    torch.manual_seed(0)
    call, inputs = CASES[name]()
    expected = outcome(call, inputs, "loops")
    monkeypatch.setattr(fused, "_ROWS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.testing.assert_close(outcome(call, inputs, "loops"), expected, rtol=1e-12, atol=1e-12)


def test_small_tensors_other_formats_and_transforms_take_the_torch_code(monkeypatch):
    large = torch.zeros(fused.SMALLEST)
    assert fused.use_loops(large) and not fused.use_loops(large[1:])
    for other in (large.double(), large.bfloat16(), large.to("meta")):
        assert not fused.use_loops(other)
    assert not fused.use_loops(large, large.double())
    with fused.using("torch"):
        assert not fused.use_loops(large)
    seen = []
    torch.func.vmap(lambda x: seen.append(fused.use_loops(x)) or x)(torch.zeros(2, fused.SMALLEST))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert seen == [False] and not fused.use_loops(large)


def test_exponentials_are_right_to_the_last_bits_and_keep_what_is_not_a_number():
    gate = torch.linspace(-60, 60, 10_001)
    with fused.using("loops"):
        found = mlp.gated(torch.stack((torch.ones_like(gate), gate), dim=-1)).squeeze(-1)
        odd = mlp.gated(torch.tensor([[1.0, torch.nan], [1.0, torch.inf], [torch.nan, 1.0]]))
    expected = torch.nn.functional.silu(gate.double()).float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert odd.squeeze(-1).isnan().tolist() == [True, False, True] and odd[1] == torch.inf
