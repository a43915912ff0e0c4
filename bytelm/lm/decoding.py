"""`Decoding`: the running rows of a generation, held by nobody else, fed in place.

States of a `ByteLM` are immutable, so that anybody may fork them; a loop that only ever continues
its rows pays for that with every byte. It holds a `Decoding` instead, which may write to buffers of
its own and gives an immutable state when rows leave, enter or fork.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bytelm.lm.decoder import DecoderState, outcomes, without_impossible
from bytelm.lm.protocol import BatchState
from bytelm.lm.running_logprob import check_pieces
from bytelm.vocab import OUTCOMES


class Decoding(ABC):
    """Several independent texts, one per row, that change as they are fed."""

    @abstractmethod
    def logprobs(self) -> Tensor:
        """(B, 257) as `BatchState.logprobs`, on the CPU; valid until rows are fed."""

    @abstractmethod
    def feed(self, data: Sequence[bytes]) -> None:
        """Append data[b] to row b."""

    @abstractmethod
    def state(self) -> BatchState:
        """The rows now, as an immutable state."""


def decoding(state: BatchState, *, forks: bool = False) -> Decoding:
    """The rows of `state`, to be continued; in place where the model can, unless they will be
    forked with every byte."""
    if isinstance(state, DecoderState) and not forks:
        return InPlace(state)
    return Immutable(state)


class Immutable(Decoding):
    """Through the states of any `ByteLM`."""

    def __init__(self, state: BatchState):
        self._state = state

    def logprobs(self) -> Tensor:
        return self._state.logprobs().cpu()

    def feed(self, data: Sequence[bytes]) -> None:
        self._state = self._state.feed(data)

    def state(self) -> BatchState:
        return self._state


class InPlace(Decoding):
    """Through the `Stepper` of a model that writes byte by byte.

    Where a row gets more or less than one byte, or its window slides, the rows go through an
    immutable state and come back: both are rare, and exist there once.
    """

    def __init__(self, state: DecoderState):
        self._taken: DecoderState | None = state  # rows that were not fed yet
        self._logprobs = state.logprobs().cpu()

    def _take(self, state: DecoderState) -> None:
        state = state.caught_up()
        self._taken = None
        self._lm, self._rows, self._logprobs = state._lm, state._rows, state.logprobs().cpu()
        self._stepper = self._lm.model.stepper(state._state, state.rows)
        self._written = bytearray()  # one byte per row and step
        # steps until the first window slides
        self._left = min(row.sliding.room(len(row.text)) for row in self._rows) - 1

    def logprobs(self) -> Tensor:
        return self._logprobs

    def feed(self, data: Sequence[bytes]) -> None:
        if self._taken is not None:
            self._take(self._taken)
        check_pieces(data, len(self._rows))
        fed = b"".join(data)
        if self._left == 0 or any(len(piece) != 1 for piece in data):
            self._take(self.state().feed(data))
            return
        self._left -= 1
        self._written += fed
        logits_BV = self._stepper.step(list(fed)).cpu()
        logprobs_BO = torch.log_softmax(logits_BV[:, :OUTCOMES], dim=-1)
        if not logprobs_BO.numpy().min() > -math.inf:  # some are impossible, or not numbers
            found = outcomes(logits_BV)
            self._rows, logprobs_BO = without_impossible(self._rows, data, found)
        self._logprobs = logprobs_BO

    def state(self) -> DecoderState:
        if self._taken is not None:
            return self._taken
        count = len(self._rows)
        rows = tuple(
            row.append_unscored(self._lm, bytes(self._written[b::count]))
            for b, row in enumerate(self._rows)
        )
        logprobs_BO = self._logprobs.to(self._lm.model.device, copy=True)
        return DecoderState(self._lm, rows, self._stepper.state(), logprobs_BO)
