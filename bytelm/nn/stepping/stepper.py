"""`Stepper`: the rows of a decode state, fed one id at a time in place.

Whoever decodes long texts holds one instead of a state: it may write to its own buffers, and gives
an immutable state when asked. Rows that leave or enter go through that state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bytelm.nn.state import State


class Stepper(ABC):
    """B rows of a model that are decoded together."""

    @abstractmethod
    def step(self, ids: Sequence[int]) -> Tensor:
        """Feed one id per row; -> logits (B, V) in float32+, valid until the next step."""

    @abstractmethod
    def state(self) -> Any:
        """The state now, as `CausalModel.step` would have returned it; later steps leave it be."""

    @property
    def chunks(self) -> int:
        """How many chunks of the outermost stage all rows have begun since this was made."""
        return 0


class StateStepper(Stepper):
    """Through a model's own `step`, for models that have nothing faster."""

    def __init__(self, step: Callable[[Tensor, Any], tuple[Tensor, Any]], state: State):
        self._step, self._state = step, state

    def step(self, ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            logits, self._state = self._step(torch.tensor(ids), self._state)
        return logits

    def state(self) -> Any:
        return self._state
