"""Smaller weights: a model's matrices as int8 or int4 (`nn/quantized.py`), and such a run on disk.

Round to nearest, and no data is looked at. int8 is torchao's `Int8WeightOnlyConfig`, bit for bit:
symmetric, the largest weight of an output channel at the end of the range. int4 lies between the
smallest and the largest weight of each group, in the form of torch's kernels. What is left as it
is: tables, norms, convolutions, the recurrence's own parameters, routers, and what a caller keeps.

torchao itself is not used: where it is installed, transformers imports it with every model, which
takes seconds and prints what it misses; and its eager int8 layers convert the whole matrix at each
call (docs/quantization.md).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bytelm.arch.base import ByteModel
from bytelm.errors import BytelmError, unknown_name
from bytelm.files import is_vacant, new_folder, write_text
from bytelm.loading import load_model
from bytelm.nn.mamba2 import Mamba2
from bytelm.nn.quantized import Int4Linear, QuantizedLinear, replace_layers, scheme_named
from bytelm.run import CONFIG, RECIPE, WEIGHTS, Run, save_tensors

KEEPABLE = ("head", "ssm")
_INT8_SPAN = 127.5  # half of the levels, as torchao counts them
_LEAST_STEP = 1e-6  # of a group of equal weights
_TOKENIZER = "tokenizer.json"  # which older runs over tokens hold without saying so


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export did.

    scheme          of the matrices that are quantized
    layers          their names
    left            matrices that the scheme cannot hold, as their width is no multiple of its group
    bytes_before, bytes_after   of all weights
    """

    scheme: str
    layers: tuple[str, ...]
    left: tuple[str, ...]
    bytes_before: int
    bytes_after: int


@torch.no_grad()
def quantize_model(
    model: nn.Module, scheme: str, *, keep: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Quantize the matrices of a model in place; -> (names of the layers that are quantized, names
    of those that the scheme cannot hold).

    scheme  "int8", "int4-g64" or "int4-g128"
    keep    parts that stay as they are: "head", the projection to the outcomes; "ssm", the
            projections of Mamba-2 layers

    `BytelmError` for an unknown scheme or part, or a model that is quantized already.
    """
    kind = scheme_named(scheme)
    for part in keep:
        if part not in KEEPABLE:
            raise BytelmError(unknown_name("part to keep", part, KEEPABLE))
    if any(isinstance(part, QuantizedLinear) for part in model.modules()):
        raise BytelmError("the model is quantized already: quantize the one it was made of")
    layers = dict(_matrices(model, keep))
    names = [name for name, layer in layers.items() if kind.fits(layer)]
    if not names:
        raise BytelmError(f"the model has no matrix that {scheme} can hold")
    weights = {name: layers[name].weight.detach().float() for name in names}
    replace_layers(model, names, scheme)
    for name, weight in weights.items():
        made = model.get_submodule(name)
        assert isinstance(made, QuantizedLinear), "layers were replaced"
        numbers, scale = _quantized(made, weight)
        made.numbers, made.scale = numbers.contiguous(), scale.contiguous()
    return names, [name for name in layers if name not in weights]


def export_quantized(
    run: str | Path, out: str | Path, scheme: str, *, keep: Sequence[str] = ()
) -> Exported:
    """Write the model of a run directory, quantized, as a run directory of its own, which
    `bytelm.load` and every command read. Arguments as `quantize_model`'s.

    `BytelmError` if `run` is quantized already, or `out` exists and is not empty.
    """
    source, target = Run(Path(run)), Path(out)
    description = source.description()
    if description.quantization:
        raise BytelmError(
            f"{run} holds weights in {description.quantization['scheme']} already: export the run "
            "it was made of"
        )
    if target.exists() and not (target.is_dir() and is_vacant(target)):
        raise BytelmError(f"{target} exists and is not empty: choose another directory")
    scheme_named(scheme)
    model = load_model(source.path)
    before = _bytes(model)
    names, left = quantize_model(model, scheme, keep=keep)
    told = {"scheme": scheme, "keep": sorted(keep), "layers": names}
    quantized = replace(description, quantization=told)
    with new_folder(target) as folder:
        save_tensors(model.state_dict(), folder / WEIGHTS)
        for name in {*description.files, RECIPE, _TOKENIZER}:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
        write_text(folder / CONFIG, json.dumps(quantized.to_dict(), indent=2) + "\n")
    return Exported(
        scheme=scheme,
        layers=tuple(names),
        left=tuple(left),
        bytes_before=before,
        bytes_after=_bytes(model),
    )


def _matrices(model: nn.Module, keep: Sequence[str]) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that are to be quantized, by name."""
    recurrent = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, Mamba2))
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        kind = "head" if name == "lm_head" else "matrix"
        if isinstance(model, ByteModel):
            kind = model.parameter_role(f"{name}.weight", layer.weight).kind
        if kind not in ("matrix", "head") or (kind == "head" and "head" in keep):
            continue
        if not ("ssm" in keep and recurrent and name.startswith(recurrent)):
            yield name, layer


def _quantized(layer: QuantizedLinear, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`numbers` and `scale` of a layer for its weight (out, in) float32."""
    if isinstance(layer, Int4Linear):
        return _int4(weight, layer.group)
    least = torch.finfo(torch.float32).eps
    scale = (weight.abs().amax(1, keepdim=True) / _INT8_SPAN).clamp(min=least)
    return (weight * (1 / scale)).round().clamp(-128, 127).to(torch.int8), scale


def _int4(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The nearest of 16 levels between the ends of each group, given that the kernels keep the
    step and the offset (the level of number 8) in bfloat16."""
    grouped = weight.unflatten(1, (-1, group))  # (out, groups, group)
    low, high = grouped.amin(-1), grouped.amax(-1)
    step = ((high - low) / 15).clamp(min=_LEAST_STEP)
    scale = torch.stack((step, low + 8 * step), -1).to(torch.bfloat16)
    step, offset = scale.float()[..., None, :].unbind(-1)
    numbers = ((grouped - offset) / step + 8).round().clamp(0, 15).to(torch.uint8).flatten(1)
    first, second = numbers.unflatten(1, (-1, 2)).unbind(-1)
    return first << 4 | second, scale.transpose(0, 1)


def _bytes(model: nn.Module) -> int:
    """Bytes of all that is stored of a model."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())
