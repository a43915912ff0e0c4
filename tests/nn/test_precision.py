"""Models in other number formats, and derivatives of any order: right, or an error."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bytelm.arch.hnet import HNet
from bytelm.data.batch import Batch
from bytelm.nn import conv, norms, ranks, rope
from bytelm.nn.boundaries import LearnedRule
from bytelm.nn.linear import Linear
from bytelm.nn.merging import BoundaryMerge
from bytelm.vocab import ByteVocab
from tests.arch.cases import CASES, cases_of, make, training_batch
from tests.nn.test_fused import FUNCTIONS as LOOPS

# -- second derivatives ----------------------------------------------------------------------------


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def rms_norm_case():
    return lambda x, w: norms.rms_norm(x, w, 1e-5), (doubles(3, 2, 5), doubles(5))


def rotation_case():
    cos, sin = rope.rotary_tables(torch.arange(4), 4, base=100.0, dtype=torch.float64)
    return lambda x: rope.rotate(x, cos, sin), (doubles(2, 4, 6),)


def convolution_case():
    documents = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 2]])

    def convolve(u, weight, bias):
        return conv.causal_conv_silu(u, weight, bias, document_ids=documents)

    return convolve, (doubles(2, 5, 3), doubles(3, 4), doubles(3))


def sum_case():
    return ranks._SumOverRanks.apply, (doubles(3),)


FUNCTIONS = {
    norms._RMSNorm: rms_norm_case,
    rope._Rotation: rotation_case,
    conv._ConvSiLU: convolution_case,
    ranks._SumOverRanks: sum_case,
}


def test_every_derivative_written_by_hand_is_checked_here():
    ours = {
        kind
        for kind in torch.autograd.Function.__subclasses__()
        if kind.__module__.startswith("bytelm")
    }
    assert ours == set(FUNCTIONS) | LOOPS


_STRAIGHT_THROUGH = (LearnedRule, BoundaryMerge)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda kind: kind.__name__)
def test_first_and_second_derivatives_are_those_of_the_function(function, monkeypatch):
    monkeypatch.setattr(ranks, "_summed", lambda x: 2 * x)  # as two equal ranks would
    torch.manual_seed(0)
    call, inputs = FUNCTIONS[function]()
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("name", CASES)
def test_the_second_derivative_of_a_model_is_the_difference_of_its_gradients(name):
    """Along a random direction, by the plain attention (the fused one has none, and says so)."""
    model = make(name)
    batch = training_batch(model)
    parameters = list(model.parameters())
    torch.manual_seed(1)
    direction = [torch.randn_like(p) for p in parameters]

    def gradients(create_graph=False):
        with sdpa_kernel(SDPBackend.MATH):
            output = model(batch)
        return torch.autograd.grad(
            output.loss, parameters, create_graph=create_graph, allow_unused=True
        )

    along = sum(
        (g * d).sum()
        for g, d in zip(gradients(create_graph=True), direction, strict=True)
        if g is not None
    )
    second = torch.autograd.grad(along, parameters, allow_unused=True)
    if any(isinstance(module, _STRAIGHT_THROUGH) for module in model.modules()):
        # decisions are straight-through (H-Net eq. 7): no gradient is the derivative of anything
        assert all(bool(part.isfinite().all()) for part in second if part is not None)
        return
    found = sum((s * d).sum() for s, d in zip(second, direction, strict=True) if s is not None)
    step = 1e-5
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * step)
        sides.append(gradients())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=sign * step)
    wanted = sum(
        ((a - b) * d).sum() / (2 * step)
        for a, b, d in zip(*sides, direction, strict=True)
        if a is not None
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# -- bfloat16 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_model_turned_to_bfloat16_runs_and_learns(name):
    model = make(name).bfloat16()
    batch = training_batch(model)
    output = model(batch)
    assert output.logits.dtype == torch.float32 and bool(output.loss.isfinite())
    sum(output.aux.values(), start=output.loss).backward()
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())
    exact = float(make(name)(batch).loss.detach())
    assert float(output.loss.detach()) == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("name", sorted(set(cases_of("causal")) - {"hnet-given"}))
@torch.no_grad()
def test_a_bfloat16_model_decodes_what_it_reads(name):
    model = make(name).bfloat16()
    batch = training_batch(model)
    ids = batch.ids[:2, :12]
    together = model(Batch(ids=ids)).logits
    logits, state = model.prefill(ids[:, :6], torch.tensor([6, 6]), model.init_state(2))
    assert logits.dtype == torch.float32
    for t in range(6, 12):
        torch.testing.assert_close(logits, together[:, t - 1], rtol=0.2, atol=0.3)
        logits, state = model.step(ids[:, t], state)


def test_linear_computes_in_the_dtype_of_its_weights_or_of_autocast():
    layer = Linear(3, 2)
    x = torch.ones(3, dtype=torch.float64)
    assert layer(x).dtype == torch.float32
    assert layer.bfloat16()(x).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(3, 2)(torch.ones(3)).dtype == torch.bfloat16


def test_no_layer_of_a_model_takes_only_inputs_of_its_own_precision():
    """Every matrix product is `Linear`, or says itself what it computes in (the router)."""
    for name in CASES:
        for path, module in make(name).named_modules():
            if type(module) is nn.Linear:
                assert path.endswith(("q_proj_layer", "k_proj_layer")), (name, path)


# -- autocast --------------------------------------------------------------------------------------


def test_the_residual_projection_of_an_hnet_stays_in_float32_under_autocast():
    """As in the released code; only there do small corrections of the encoder reach the decoder."""
    torch.manual_seed(0)
    arch, settings = CASES["hnet-1stage"]
    assert arch == "hnet"
    model = HNet(HNet.Config(**settings), ByteVocab())
    level = model.backbone
    nn.init.normal_(level.residual_proj.weight)
    seen = []
    level.residual_proj.register_forward_hook(lambda _, inputs, out: seen.append((inputs, out)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(training_batch(model))
    ((encoded,), out) = seen[0]
    assert encoded.dtype == out.dtype == torch.float32
    exact = encoded.double() @ level.residual_proj.weight.double().T + level.residual_proj.bias
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
