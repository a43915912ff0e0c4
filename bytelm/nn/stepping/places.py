"""`Places`: which rows of a stack take a step, and at which position each of them stands.

All layers of a stack share it, so whatever follows from positions (rotary tables, masks, index
tensors) is made once per step, and only if some layer wants it. Positions are numbers of Python:
nothing is asked of the device. There are two cases, and each layer has one path for either: the
rows stand at the same position and are contiguous in the buffers (one row always does), or not.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bytelm.nn.rope import rotary_tables


class Places:
    """rows: numbers of the rows that step, None = all `positions`' rows; positions: of each.

    position    the one at which all stand that step, if they are neighbours in the buffers; or None
    """

    def __init__(self, rows: Sequence[int] | None, positions: Sequence[int], device: torch.device):
        self.rows, self.positions, self.device = rows, positions, device
        first = positions[0]
        same = len(positions) == 1 or (rows is None and positions.count(first) == len(positions))
        self.position = first if same else None
        self.span = slice(None) if rows is None else slice(rows[0], rows[0] + 1)
        self._masks: dict[int, tuple[int, Tensor]] = {}

    @cached_property
    def longest(self) -> int:
        """Positions in the longest row, the present one included."""
        return max(self.positions) + 1

    @cached_property
    def index(self) -> Tensor:
        """(n,) numbers of the rows that step."""
        rows = range(len(self.positions)) if self.rows is None else self.rows
        return torch.tensor(list(rows), device=self.device)

    @cached_property
    def row_array(self) -> Any:
        """`index` as an array of numpy."""
        return np.array(range(len(self.positions)) if self.rows is None else self.rows)

    @cached_property
    def position_array(self) -> Any:
        """`slots` as an array of numpy."""
        return np.array(self.positions)

    @cached_property
    def slots(self) -> Tensor:
        """(n,) the position of each."""
        return torch.tensor(list(self.positions), device=self.device)

    def mask(self, window: int, dtype: torch.dtype) -> tuple[int, Tensor]:
        """The first position that any row sees, and what is added to scores from there on:
        (n, 1, 1, longest - first), 0 where a row looks and -inf elsewhere."""
        if window not in self._masks:
            first = 0 if window < 0 else max(0, min(self.positions) - window)
            distance = self.slots[:, None] - torch.arange(first, self.longest, device=self.device)
            hidden = distance < 0
            if window >= 0:
                hidden |= distance > window
            mask = torch.zeros(distance.shape, dtype=dtype, device=self.device)
            mask.masked_fill_(hidden, -torch.inf)
            self._masks[window] = first, mask[:, None, None]
        return self._masks[window]


class RotaryTables:
    """cos (positions, r) and signed sin (positions, 2, r / 2) for all positions up to a capacity:
    x * cos + halves of x exchanged * sin is the rotation of `nn.rope`."""

    def __init__(self, width: int, *, base: float, dtype: torch.dtype, device: torch.device):
        self.width, self.base, self.dtype, self.device = width, base, dtype, device
        self._cos, self._sin = torch.empty(0), torch.empty(0)
        self._at: tuple[Places | None, Tensor, Tensor] = (None, self._cos, self._sin)

    def grow(self, capacity: int) -> None:
        """Make the tables for positions below `capacity`."""
        exact = torch.promote_types(self.dtype, torch.float32)
        positions = torch.arange(capacity, device=self.device)
        cos, sin = rotary_tables(positions, self.width, base=self.base, dtype=exact)
        cos, sin = cos.to(self.dtype), sin.to(self.dtype)
        self._cos, self._sin = torch.cat((cos, cos), dim=-1), torch.stack((-sin, sin), dim=1)
        self._halves = cos, sin

    @property
    def arrays(self) -> tuple[Any, Any]:
        """cos and sin (capacity, r / 2) as arrays on the CPU."""
        cos, sin = self._halves
        return cos.numpy(), sin.numpy()

    def at(self, places: Places) -> tuple[Tensor, Tensor]:
        """cos (r) or (n, 1, 1, r), sin (2, r / 2) or (n, 1, 1, 2, r / 2)."""
        if self._at[0] is not places:
            if places.position is not None:
                cos, sin = self._cos[places.position], self._sin[places.position]
            else:
                cos = self._cos[places.slots][:, None, None]
                sin = self._sin[places.slots][:, None, None]
            self._at = places, cos, sin
        return self._at[1:]
