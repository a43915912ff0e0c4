"""Residual blocks of a stack through the compiled kernels, for few rows on a CPU.

The kernels work on the buffers of the layers' steps, so that a stack may take one step this way and
the next one through torch, as the number of rows has it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from bytelm.nn.loops import decoding as kernels
from bytelm.nn.mlp import SwiGLU
from bytelm.nn.norms import RMSNorm
from bytelm.nn.stack import Block
from bytelm.nn.stepping.attention import AttentionSteps
from bytelm.nn.stepping.mamba2 import MambaSteps
from bytelm.nn.stepping.places import Places
from bytelm.nn.stepping.short_conv import ConvSteps

mamba_block: Callable[..., None] = kernels.mamba_block
Kernel = Callable[[Any, Places], None]  # x (n, D), an array that is written to


def fused(layer: Block, mixer: AttentionSteps | MambaSteps | ConvSteps) -> list[Kernel]:
    """The residual blocks of a layer whose mixer's steps are `mixer`; it must be one that
    `stack.compiles` says can be compiled."""
    if isinstance(mixer, AttentionSteps):
        blocks = [_attention(layer, mixer)]
    elif isinstance(mixer, MambaSteps):
        blocks = [_mamba(layer, mixer)]
    else:
        blocks = [_short_conv(layer, mixer)]
    if layer.mlp is not None:
        blocks.append(_swiglu(layer.norm2, layer.mlp))
    return blocks


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _swiglu(norm: RMSNorm, mlp: SwiGLU) -> Kernel:
    scale, eps = _array(norm.weight), norm.eps
    fc1, fc2 = _array(mlp.fc1.weight), _array(mlp.fc2.weight)
    return lambda x, places: kernels.swiglu_block(x, scale, eps, fc1, fc2)


def _attention(layer: Block, steps: AttentionSteps) -> Kernel:
    norm, module = layer.norm1, steps.module
    scale, eps = _array(norm.weight), norm.eps
    wqkv, wout = _array(module.Wqkv.weight), _array(module.out_proj.weight)
    window = module.options.window
    qk_eps = steps.qk_eps
    still = np.empty((1, 0), scale.dtype)

    def run(x: Any, places: Places) -> None:
        keys, values = steps.arrays
        cos, sin = (still, still) if steps.tables is None else steps.tables.arrays
        kernels.attention_block(
            x, scale, eps, wqkv, wout, keys, values, places.row_array, places.position_array,
            window, qk_eps, cos, sin,
        )  # fmt: skip

    return run


def _mamba(layer: Block, steps: MambaSteps) -> Kernel:
    norm, module = layer.norm1, steps.module
    scale, eps = _array(norm.weight), norm.eps
    win, wout = _array(module.in_proj.weight), _array(module.out_proj.weight)
    gate_scale, gate_eps = _array(module.norm.weight), module.norm.eps
    rest = [_array(part) for part in steps.constants]
    tails, states = (_array(part) for part in steps.buffers)

    def run(x: Any, places: Places) -> None:
        mamba_block(
            x, scale, eps, win, wout, *rest, gate_scale, gate_eps, tails, states, places.row_array
        )

    return run


def _short_conv(layer: Block, steps: ConvSteps) -> Kernel:
    scale, eps = _array(layer.norm1.weight), layer.norm1.eps
    kernel, bias, tails = _array(steps.kernel), _array(steps.bias), _array(steps.tail)
    return lambda x, places: kernels.conv_block(
        x, scale, eps, kernel, bias, tails, places.row_array
    )
