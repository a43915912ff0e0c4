"""Smaller weights: a model's matrices as int8 or int4 (`nn/quantized.py`), and such a run on disk.

The numbers are torchao's: symmetric, rounded to nearest, the largest weight of an output channel at
the end of the range (int8); the same between the smallest and the largest of each group (int4, as
its tinygemm kernels want it). No data is looked at. What is left as it is: tables, norms,
convolutions, the recurrence's own parameters, routers, and whatever the caller keeps.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from bytelm.arch.base import ByteModel
from bytelm.errors import BytelmError, MissingExtraError, unknown_name
from bytelm.files import is_vacant, new_folder, write_text
from bytelm.loading import load_model
from bytelm.nn.mamba2 import Mamba2
from bytelm.nn.quantized import Int4Linear, QuantizedLinear, replace_layers, scheme_named
from bytelm.run import CONFIG, RECIPE, WEIGHTS, Run, save_tensors

KEEPABLE = ("head", "ssm")
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

    `BytelmError` for an unknown scheme or part, or a model that is quantized already;
    `MissingExtraError` without torchao.
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
    primitives, utils = _torchao()
    if isinstance(layer, Int4Linear):
        made = utils.groupwise_affine_quantize_tensor(weight, n_bit=4, groupsize=layer.group)
        numbers, scale = made
        high, low = numbers.unflatten(1, (-1, 2)).to(torch.uint8).unbind(-1)
        return high << 4 | low, scale
    row = (1, weight.shape[1])
    span = {"quant_min": -128, "quant_max": 127}
    eps = torch.finfo(torch.float32).eps
    symmetric = primitives.MappingType.SYMMETRIC
    scale, zero = primitives.choose_qparams_affine(
        weight, symmetric, row, torch.int8, **span, eps=eps, scale_dtype=torch.float32
    )
    numbers = primitives.quantize_affine(weight, row, scale, zero, torch.int8, **span)
    return numbers, scale.reshape(-1, 1)


def _torchao() -> tuple[ModuleType, ModuleType]:
    """torchao's quant_primitives and utils. What it says about kernels that it does not find is of
    no use here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization.quant_primitives as primitives
            import torchao.quantization.utils as utils
    except ImportError:
        raise MissingExtraError("torchao", "quantize", "quantizing a model") from None
    finally:
        logging.disable(level)
    return primitives, utils


def _bytes(model: nn.Module) -> int:
    """Bytes of all that is stored of a model."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())
