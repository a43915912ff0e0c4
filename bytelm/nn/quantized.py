"""Linear layers whose weights are whole numbers: int8 with a scale per output channel, or int4 with
a scale and an offset per group of 64 or 128 inputs.

Weight-only quantization makes a model smaller and its steps faster, since a step reads every weight
once; activations stay as they are. How numbers are chosen is `bytelm.hub.quantize`'s business; here
they are stored and multiplied. On the CPU that is torch's packed kernels, which round activations
to bfloat16 and add in float32. Where there is none (another device, a float64 model, a width the
kernels cannot read) the weight is written out and multiplied as any other.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.errors import BytelmError, unknown_name

_ROWS, _COLUMNS = 16, 16  # what the kernels' widths are multiples of
_ALIGNMENT = 64  # bytes


class QuantizedLinear(nn.Module):
    """(..., in) -> (..., out), as the `Linear` it was made of, up to the rounding of its weights.

    numbers  the weights as whole numbers: a buffer
    scale    what turns them into the weights: a buffer
    bias     that of the layer, as it was
    """

    scheme: ClassVar[str]
    numbers: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self._packed: tuple[Tensor, Tensor] | None = None  # what the kernel reads

    @classmethod
    def like(cls, layer: nn.Linear) -> Self:
        """With the sizes and the bias of a layer, on its device; the numbers are arbitrary."""
        made = cls(layer.in_features, layer.out_features, layer.bias)
        device = layer.weight.device
        for name, (shape, dtype) in made.buffer_shapes().items():
            made.register_buffer(name, torch.empty(shape, dtype=dtype, device=device))
        return made

    @abstractmethod
    def buffer_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of `numbers` and `scale`."""

    @classmethod
    @abstractmethod
    def fits(cls, layer: nn.Linear) -> bool:
        """Whether the scheme can hold a layer of that width."""

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """(out, in) float32: the weights that the numbers stand for."""

    @abstractmethod
    def _pack(self) -> tuple[Tensor, Tensor]:
        """Numbers and scale as the kernel reads them."""

    @abstractmethod
    def _multiply(self, x_NK: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
        """The kernel: (N, in) bfloat16 -> (N, out) bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        exact = x.dtype == torch.float64 or x.device.type != "cpu"
        if exact or self.in_features % _COLUMNS:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.linear(x, self.weight.to(x.dtype), bias)
        if self._packed is None:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = self._pack()
        flat_NK = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        y = self._multiply(_aligned(flat_NK), *self._packed).to(x.dtype).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)


def _aligned(x: Tensor) -> Tensor:
    """The tensor, contiguous and where the kernels' aligned loads can read it: a tensor of a mapped
    file may begin anywhere, and they would end the process."""
    x = x.contiguous()
    return x if x.data_ptr() % _ALIGNMENT == 0 else x.clone()


class Int8Linear(QuantizedLinear):
    """weight = numbers (out, in) int8 times scale (out, 1)."""

    scheme = "int8"

    def buffer_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        N, K = self.out_features, self.in_features
        return {"numbers": ((N, K), torch.int8), "scale": ((N, 1), torch.float32)}

    @classmethod
    def fits(cls, layer: nn.Linear) -> bool:
        return True

    @property
    def weight(self) -> Tensor:
        return self.numbers.float() * self.scale.float()

    def _pack(self) -> tuple[Tensor, Tensor]:
        return _aligned(self.numbers), self.scale[:, 0].to(torch.bfloat16)

    def _multiply(self, x_NK: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x_NK, numbers, scale)


class Int4Linear(QuantizedLinear):
    """weight = (number - 8) times scale[..., 0] plus scale[..., 1], for scale (in / group, out, 2)
    bfloat16. `numbers` (out, in / 2) uint8 hold two each, the first in the high half."""

    group: ClassVar[int]

    def buffer_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        N, K = self.out_features, self.in_features
        return {
            "numbers": ((N, K // 2), torch.uint8),
            "scale": ((K // self.group, N, 2), torch.bfloat16),
        }

    @classmethod
    def fits(cls, layer: nn.Linear) -> bool:
        return layer.in_features % cls.group == 0

    def unpacked(self) -> Tensor:
        """(out, in) int32 in 0..15."""
        pairs = torch.stack((self.numbers >> 4, self.numbers & 15), dim=-1)
        return pairs.flatten(1).to(torch.int32)

    @property
    def weight(self) -> Tensor:
        grouped = self.unpacked().float().unflatten(1, (-1, self.group)) - 8
        step, offset = self.scale.float().permute(2, 1, 0)[..., None]
        return (grouped * step + offset).flatten(1)

    def _pack(self) -> tuple[Tensor, Tensor]:
        missing = -self.out_features % _ROWS
        numbers = F.pad(self.unpacked(), (0, 0, 0, missing), value=8)
        packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
        return packed, F.pad(self.scale, (0, 0, 0, missing)).contiguous()

    def _multiply(self, x_NK: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
        y = torch._weight_int4pack_mm_for_cpu(x_NK, numbers, self.group, scale)
        return y[:, : self.out_features]


class Int4Group64(Int4Linear):
    """In groups of 64 inputs."""

    scheme, group = "int4-g64", 64


class Int4Group128(Int4Linear):
    """In groups of 128 inputs."""

    scheme, group = "int4-g128", 128


SCHEMES: dict[str, type[QuantizedLinear]] = {
    kind.scheme: kind for kind in (Int8Linear, Int4Group64, Int4Group128)
}


def scheme_named(name: str) -> type[QuantizedLinear]:
    """The layers of a scheme; `BytelmError` for an unknown one."""
    if name not in SCHEMES:
        raise BytelmError(unknown_name("quantization scheme", name, SCHEMES))
    return SCHEMES[name]


def replace_layers(model: nn.Module, names: list[str], scheme: str) -> None:
    """Put layers of a scheme, whose numbers are still to be loaded, in the place of the named
    linear ones. `BytelmError` if a name is not that of one."""
    kind = scheme_named(scheme)
    for name in names:
        parent, _, last = name.rpartition(".")
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear) or not kind.fits(layer):
            raise BytelmError(f"the model has no linear layer {name!r} that {scheme} can hold")
        setattr(model.get_submodule(parent), last, kind.like(layer))
