"""A decoding step of a stack: its layers as a flat list of small functions.

A kind of layer without a class here is decoded through its immutable form, so that a new mixer
works before somebody makes it fast.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from bytelm.nn.attention import SelfAttention
from bytelm.nn.cache import KVCache, grown
from bytelm.nn.linear import Linear
from bytelm.nn.mamba2 import Mamba2, MambaState
from bytelm.nn.mlp import SwiGLU
from bytelm.nn.norms import RMSNorm
from bytelm.nn.short_conv import ConvState, ShortConv
from bytelm.nn.stack import Block, Stack, StackState
from bytelm.nn.state import State
from bytelm.nn.stepping.attention import AttentionSteps
from bytelm.nn.stepping.mamba2 import MambaSteps
from bytelm.nn.stepping.ops import Map, linear, rms_norm, swiglu
from bytelm.nn.stepping.places import Places, RotaryTables
from bytelm.nn.stepping.short_conv import ConvSteps

if TYPE_CHECKING:
    from bytelm.nn.stepping.fused import Kernel

_FIRST_ROOM = 64  # positions
MOST_ROWS = 32  # that kernels are used for; for more, torch's products of matrices are faster


class _Mixer(Protocol):
    def step(self, x_nD: Tensor, places: Places) -> Tensor: ...

    def state(self, lengths: Tensor) -> State: ...


class _ImmutableSteps:
    """Any mixer, or whole layer, with `extend`."""

    def __init__(self, module: Any, state: State):
        self._module, self._state = module, state

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        # what immutable states hold may be written to later, hence must not be of inference mode
        with torch.inference_mode(False), torch.no_grad():
            x = x_nD.clone()[:, None]
            if places.rows is None:
                y, self._state = self._module.extend(x, None, self._state)
            else:
                y, part = self._module.extend(x, None, self._state.view(places.index))
                self._state = self._state.scatter(places.index, part)
        return y[:, 0]

    def state(self, lengths: Tensor) -> State:
        return self._state


class StackSteps:
    """x (n, D) -> (n, D) through a stack and its norm, for rows of a `StackState` of B rows."""

    chunks = 0

    def __init__(self, stack: Stack, state: StackState, rows: int, *, compiled: bool = False):
        self._device = stack.device
        self._exact = torch.promote_types(stack.dtype, torch.float32)
        self._lengths = _lengths(state, rows)  # positions that each row holds; 0 if nobody looks
        self._tables: dict[tuple[int, float, torch.dtype], RotaryTables] = {}
        self._attention: list[AttentionSteps] = []
        self._mixers: list[_Mixer] = []
        self._steps: list[Callable[[Tensor, Places], Tensor]] = []
        for layer, before in zip(stack.layers, state.layers, strict=True):
            self._add(layer, before)
        self._norm = _norm(stack.rmsnorm)
        self._kernels = _kernels(stack, self._mixers) if compiled else None
        self._room = min((layer.capacity for layer in self._attention), default=0)
        if self._attention:
            self._grow(max(self._room, _FIRST_ROOM))

    def step(
        self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int] | None = None
    ) -> Tensor:
        """Feed one position to the rows with these numbers, None = all; x (n, D) of each. What ids
        they are makes no difference."""
        lengths = self._lengths
        positions = lengths.copy() if rows is None else [lengths[b] for b in rows]
        if self._attention and max(positions) >= self._room:
            self._grow(grown(self._room, max(positions) + 1))
        for b in range(len(lengths)) if rows is None else rows:
            lengths[b] += 1
        places = Places(rows, positions, self._device)
        x = x_nD.to(self._exact, copy=True)
        if self._kernels is not None and len(x) <= MOST_ROWS:
            array = x.numpy()
            for kernel in self._kernels:
                kernel(array, places)
        else:
            for step in self._steps:
                step(x, places)
        return self._norm(x)

    def state(self) -> StackState:
        """The immutable state of all rows."""
        lengths = torch.tensor(self._lengths, device=self._device)
        return StackState(tuple(mixer.state(lengths) for mixer in self._mixers))

    def restart(self, rows: Sequence[int]) -> None:
        """Let these rows begin from scratch; for stacks of attention only, whose buffers are
        written over."""
        assert len(self._attention) == len(self._mixers), "some layer has a state of its own"
        for b in rows:
            self._lengths[b] = 0

    def _grow(self, room: int) -> None:
        self._room = room
        with torch.inference_mode(False), torch.no_grad():
            for layer in self._attention:
                layer.grow(room)
            for tables in self._tables.values():
                tables.grow(room)

    def _add(self, layer: nn.Module, state: State) -> None:
        """Append the step of one layer, which writes to the residual stream in place."""
        if type(layer) is not Block:
            whole = _ImmutableSteps(layer, state)
            self._mixers.append(whole)
            self._steps.append(lambda x, places: x.copy_(whole.step(x, places)))
            return
        norm, mixer = _norm(layer.norm1), self._mixer(layer.mixer, state)
        self._mixers.append(mixer)
        mix = mixer.step
        self._steps.append(lambda x, places: x.add_(mix(norm(x), places)))
        if layer.mlp is not None:
            norm2, mlp = _norm(layer.norm2), _mlp(layer.mlp)
            self._steps.append(lambda x, places: x.add_(mlp(norm2(x))))

    def _mixer(self, module: nn.Module, state: State) -> Any:
        if type(module) is SelfAttention and isinstance(state, KVCache):
            steps = AttentionSteps(module, state, self._tables_of(module))
            self._attention.append(steps)
            return steps
        if type(module) is Mamba2 and isinstance(state, MambaState):
            return MambaSteps(module, state)
        if type(module) is ShortConv and isinstance(state, ConvState):
            return ConvSteps(module, state)
        return _ImmutableSteps(module, state)

    def _tables_of(self, module: SelfAttention) -> RotaryTables | None:
        """The rotary tables of a layer, shared by all layers with the same."""
        o, dtype = module.options, module.Wqkv.weight.dtype
        if not o.rotary_dim:
            return None
        key = o.rotary_dim, o.base, dtype
        if key not in self._tables:
            self._tables[key] = RotaryTables(
                o.rotary_dim, base=o.base, dtype=dtype, device=self._device
            )
        return self._tables[key]


def compiles(stack: Stack) -> bool:
    """Whether all layers have compiled kernels: parts of ours, whose weights are plain arrays of
    one dtype, float32 or float64, on the CPU."""
    kinds = (Block, RMSNorm, Linear, SwiGLU, SelfAttention, Mamba2, ShortConv, nn.Conv1d)
    dtype = stack.dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(type(part) in kinds for layer in stack.layers for part in layer.modules())
        and all(
            type(weight) is nn.Parameter
            and type(weight.data) is Tensor
            and weight.dtype is dtype
            and weight.device.type == "cpu"
            and weight.is_contiguous()
            for weight in stack.parameters()
        )
    )


def _kernels(stack: Any, mixers: Sequence[Any]) -> "list[Kernel]":
    """The residual blocks of all layers as compiled kernels."""
    from bytelm.nn.stepping.fused import fused  # compiles, which not every user of a model needs

    assert compiles(stack), "some layer has no kernel"
    pairs = zip(stack.layers, mixers, strict=True)
    return [kernel for layer, mixer in pairs for kernel in fused(layer, mixer)]


def _norm(module: nn.Module) -> Map:
    return rms_norm(module) if type(module) is RMSNorm else module


def _mlp(module: nn.Module) -> Map:
    if type(module) is not SwiGLU:
        return module
    return swiglu(linear(module.fc1), linear(module.fc2))


def _lengths(state: StackState, rows: int) -> list[int]:
    for layer in state.layers:
        if isinstance(layer, KVCache):
            return layer.lengths.tolist()
    return [0] * rows
