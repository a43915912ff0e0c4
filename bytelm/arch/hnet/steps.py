"""H-Net's levels, one position per row in place (section 2.2; `levels.py` has the other forms).

The inner level runs only on the rows that start a chunk now; the others keep reading the smoothed
vector of their last chunk. Which rows those are is the one thing asked of the device per step, and
only under the learned rule.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from bytelm.arch.hnet.levels import ChunkLevel, Level, LevelState, MainLevel
from bytelm.nn.chunking import P_MIN
from bytelm.nn.stack import StackState
from bytelm.nn.state import State
from bytelm.nn.stepping.boundaries import rule_steps
from bytelm.nn.stepping.ops import linear
from bytelm.nn.stepping.stack import StackSteps


class LevelSteps(Protocol):
    """A level in place, for B rows; `chunks` counts those its own stage has begun."""

    chunks: int

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int] | None) -> Tensor:
        """Feed one position to the rows with these numbers, None = all; ids at the outermost level
        only; -> outputs (n, D outer)."""

    def state(self) -> State:
        """The immutable state of all rows."""


class MainLevelSteps:
    """The main network."""

    chunks = 0

    def __init__(self, level: MainLevel, state: StackState, rows: int, *, compiled: bool):
        self._pad, self._outer_dim = level.pad_dimension, level.outer_dim
        self._stack = StackSteps(level.main_network, state, rows, compiled=compiled)

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int] | None) -> Tensor:
        return self._stack.step(_widen(x_nD, self._pad), rows)[:, : self._outer_dim]

    def state(self) -> StackState:
        return self._stack.state()


class ChunkLevelSteps:
    """Encoder, rule, inner level where a chunk starts, smoothing, decoder."""

    def __init__(self, level: ChunkLevel, state: LevelState, rows: int, *, compiled: bool):
        assert level.pooler.delay == 0, "a chunk is read from its first position on"
        self._pad, self._outer_dim = level.pad_dimension, level.outer_dim
        self._encoder = StackSteps(level.encoder, state.encoder, rows, compiled=compiled)
        self._decoder = StackSteps(level.decoder, state.decoder, rows, compiled=compiled)
        self._skip = linear(level.residual_proj)
        self._rule = rule_steps(level.routing_module, state.rule)
        self._inner = level_steps(level.main_network, state.inner, rows, compiled=compiled)
        self._positions: list[int] = state.position.tolist()
        self._smoothed = state.smoothed.clone()
        self.chunks = 0

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int] | None) -> Tensor:
        encoded = self._encoder.step(_widen(x_nD, self._pad), rows)
        numbers = range(len(self._positions)) if rows is None else rows
        index = None if rows is None else torch.tensor(list(rows), device=encoded.device)
        positions = [self._positions[b] for b in numbers]
        starts, p = self._rule.cut(encoded, numbers, index, positions, ids)
        for i, b in enumerate(numbers):
            if positions[i] == 0:
                starts[i] = True
                if p is not None:
                    p[i] = 1
            self._positions[b] += 1
        chosen = [i for i, start in enumerate(starts) if start]
        if chosen:
            self.chunks += len(chosen)
            self._read_inner(encoded, chosen, rows, p)
        read = self._smoothed if index is None else self._smoothed.index_select(0, index)
        skipped = self._skip(encoded)
        joined = read.to(encoded.dtype) + skipped
        return self._decoder.step(joined, rows)[:, : self._outer_dim]

    def _read_inner(
        self, encoded: Tensor, chosen: list[int], rows: Sequence[int] | None, p: Tensor | None
    ) -> None:
        """Run the inner level on the chosen of these rows and smooth what it says (eq. 5)."""
        if len(chosen) == len(encoded):
            inner_rows, x = rows, encoded
        else:
            inner_rows = chosen if rows is None else [rows[i] for i in chosen]
            place = torch.tensor(chosen, device=encoded.device)
            x = encoded.index_select(0, place)
            p = None if p is None else p.index_select(0, place)
        z = self._inner.step(x, inner_rows, None)
        index = None
        if inner_rows is not None:
            index = torch.tensor(list(inner_rows), device=z.device)
        if p is not None:
            before = self._smoothed if index is None else self._smoothed.index_select(0, index)
            weight = p.to(z.dtype).clamp(P_MIN, 1 - P_MIN)[:, None]
            z = torch.lerp(before.to(z.dtype), z, weight)
        if index is None:
            self._smoothed.copy_(z)
        else:
            self._smoothed.index_copy_(0, index, z.to(self._smoothed.dtype))

    def state(self) -> LevelState:
        return LevelState(
            encoder=self._encoder.state(),
            position=torch.tensor(self._positions, device=self._smoothed.device),
            rule=self._rule.state(),
            inner=self._inner.state(),
            smoothed=self._smoothed.clone(),
            decoder=self._decoder.state(),
        )


def level_steps(level: Level, state: Any, rows: int, *, compiled: bool) -> LevelSteps:
    """A level and all inside it, in place."""
    if isinstance(level, MainLevel):
        return MainLevelSteps(level, state, rows, compiled=compiled)
    assert isinstance(level, ChunkLevel), f"there are no steps for {type(level).__name__}"
    return ChunkLevelSteps(level, state, rows, compiled=compiled)


def _widen(x: Tensor, pad: Tensor | None) -> Tensor:
    if pad is None:
        return x
    return torch.cat((x, pad.to(x.dtype).expand(x.shape[0], -1)), dim=-1)
