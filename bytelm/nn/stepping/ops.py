"""Small operations of a decoding step, with as few dispatches as they can do with.

A step of a model of a few million parameters is a hundred operations of a few microseconds, so what
counts is their number. Linear layers are applied to few rows, where a product with the transposed
weight, stored row by row, runs about twice as fast on CPUs (`benchmarks/decoding.py`): it is copied
once per model, unless it is so large that reading it takes longer than anything else.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.linear import Linear
from bytelm.nn.norms import RMSNorm

Map = Callable[[Tensor], Tensor]

_COPIED = 1 << 24  # elements; larger weights are used as they are

_transposed: "WeakKeyDictionary[nn.Module, tuple[int, float, Tensor]]" = WeakKeyDictionary()


def linear(layer: nn.Module) -> Map:
    """x (n, in) -> (n, out) as `layer` computes it, in the dtype of its weights."""
    if type(layer) is not Linear or not _copies(layer.weight):
        return layer
    weight: Tensor | None = None  # made when it is first needed: kernels have no use for it
    bias, dtype = layer.bias, layer.weight.dtype

    def apply(x: Tensor) -> Tensor:
        nonlocal weight
        if weight is None:
            weight = _transpose(layer)
        if x.dtype is not dtype:
            x = x.to(dtype)
        return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)

    return apply


def _copies(weight: Tensor) -> bool:
    plain = type(weight) in (nn.Parameter, Tensor) and type(weight.data) is Tensor
    exact = weight.dtype in (torch.float32, torch.float64)
    return plain and exact and weight.device.type == "cpu" and weight.numel() <= _COPIED


def _transpose(layer: Linear) -> Tensor:
    """(in, out), made again if the weight was written to since, which its sum shows: torch counts
    no writes through `.data`."""
    weight = layer.weight.detach()
    seen = weight.data_ptr(), float(weight.sum())
    known = _transposed.get(layer)
    if known is None or known[:2] != seen:
        with torch.inference_mode(False), torch.no_grad():
            known = _transposed[layer] = *seen, weight.t().contiguous()
    return known[2]


def unit_rms(x: Tensor, eps: Tensor, share: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis of a tensor in float32 or better; `share` is
    1 / its width, eps () a tensor."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, length, length, value=share).rsqrt_().mul(x)


def rms_norm(norm: RMSNorm) -> Map:
    """x (n, D) -> (n, D) as `norm` computes it."""
    weight, groups = norm.weight.detach(), norm.groups
    exact = torch.promote_types(weight.dtype, torch.float32)
    weight = weight.to(exact)
    width = weight.shape[0] // groups
    eps, share = weight.new_tensor(norm.eps), 1 / width

    def apply(x: Tensor) -> Tensor:
        if x.dtype is not exact:
            x = x.to(exact)
        if groups == 1:
            return unit_rms(x, eps, share).mul_(weight)
        parts = unit_rms(x.view(-1, groups, width), eps, share)
        return parts.view(x.shape).mul_(weight)

    return apply


def convolve(new_nC: Tensor, tail_nKC: Tensor, kernel_KC: Tensor, bias_C: Tensor) -> Tensor:
    """silu of the causal convolution at one more position (n, C); moves the tail (n, K-1, C)."""
    tail = tail_nKC if tail_nKC.dtype is new_nC.dtype else tail_nKC.to(new_nC.dtype)
    inputs = torch.cat((tail, new_nC.unsqueeze(1)), dim=1)
    tail_nKC.copy_(inputs[:, 1:])
    return F.silu((inputs * kernel_KC).sum(1).add_(bias_C), inplace=True)


def swiglu(fc1: Map, fc2: Map) -> Map:
    """x -> fc2(value * silu(gate)), where fc1 gives value, then gate."""

    def apply(x: Tensor) -> Tensor:
        value, gate = fc1(x).chunk(2, dim=-1)
        return fc2(F.silu(gate).mul_(value))

    return apply
