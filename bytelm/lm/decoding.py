"""`Decoding`: the running rows of a generation, held by nobody else, fed in place.

States of a `ByteLM` are immutable, so that anybody may fork them; a loop that only ever continues
its rows pays for that with every byte. It holds a `Decoding` instead, which may write to buffers of
its own and gives an immutable state when rows leave, enter or fork.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.decoder import DecoderLM, DecoderState, outcomes, without_impossible
from bytelm.lm.protocol import BatchState, ByteLM
from bytelm.lm.running_logprob import check_pieces
from bytelm.vocab import OUTCOMES

Backend = Literal["auto", "eager", "compiled"]
KERNELS = "bytelm.nn.stepping.fused"
_PAYS = 512  # bytes whose decoding gains more from compiled kernels than loading them takes
_ONE_THREAD = 1 << 24  # parameters; larger models are decoded by all threads that torch has


class Decoding(ABC):
    """Several independent texts, one per row, that change as they are fed.

    backend, why   by what they are decoded, and why by that, for people
    """

    backend = "immutable"
    why = "states of this model are all it has"

    @property
    def chunks(self) -> int:
        """How many chunks of its outermost stage a hierarchical model began since this was made."""
        return 0

    @abstractmethod
    def logprobs(self) -> Tensor:
        """(B, 257) as `BatchState.logprobs`, on the CPU; valid until rows are fed."""

    @abstractmethod
    def feed(self, data: Sequence[bytes]) -> None:
        """Append data[b] to row b."""

    @abstractmethod
    def state(self) -> BatchState:
        """The rows now, as an immutable state."""


def check_backend(lm: ByteLM, backend: str) -> None:
    """`BytelmError` for a backend that there is not, or that this model does not have."""
    if backend not in get_args(Backend):
        raise BytelmError(unknown_name("backend", backend, get_args(Backend)))
    if backend == "compiled" and not _compiles(lm):
        raise BytelmError(
            "backend='compiled' needs a native model of Mamba-2, attention and SwiGLU layers in "
            f"float32 or float64 on the CPU, which this {type(lm).__name__} is not: use 'auto'"
        )


def _compiles(lm: ByteLM) -> bool:
    return isinstance(lm, DecoderLM) and lm.model.compiles


def _parameters(lm: DecoderLM) -> int:
    return sum(parameter.numel() for parameter in lm.model.parameters())


def decoding(
    state: BatchState, *, forks: bool = False, backend: Backend = "auto", wanted: int = 0
) -> Decoding:
    """The rows of `state`, to be continued; in place where the model can.

    forks: whether they will be forked with every byte, which states are for; backend: what
    computes, of which "auto" takes what pays for `wanted` bytes.
    """
    if not isinstance(state, DecoderState):
        return Immutable(state)
    if forks:
        return Immutable(state, why="beams fork with every byte")
    if backend != "auto":
        return InPlace(state, compiled=backend == "compiled", why="as asked")
    if not _compiles(state._lm):
        return InPlace(state, compiled=False, why="this model has no compiled form here")
    if torch.get_num_threads() > 1 and _parameters(state._lm) > _ONE_THREAD:
        return InPlace(state, compiled=False, why="kernels use one thread, torch has several")
    if KERNELS in sys.modules:
        return InPlace(state, compiled=True, why="kernels are loaded")
    pays, more = wanted >= _PAYS, "at least" if wanted >= _PAYS else "fewer than"
    return InPlace(state, compiled=pays, why=f"{more} {_PAYS} bytes are wanted")


class Immutable(Decoding):
    """Through the states of any `ByteLM`."""

    def __init__(self, state: BatchState, *, why: str = Decoding.why):
        self._state, self.why = state, why

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

    def __init__(self, state: DecoderState, *, compiled: bool, why: str):
        self.backend, self.why = ("compiled" if compiled else "eager"), why
        self._chunks = 0  # begun before the present stepper was made
        self._taken: DecoderState | None = state  # rows that were not fed yet
        self._logprobs = state.logprobs().cpu()

    def _take(self, state: DecoderState) -> None:
        state = state.caught_up()
        self._taken = None
        self._lm, self._rows, self._logprobs = state._lm, state._rows, state.logprobs().cpu()
        self._stepper = self._lm.model.stepper(
            state._state, state.rows, compiled=self.backend == "compiled"
        )
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
            self._chunks = self.chunks
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

    @property
    def chunks(self) -> int:
        return self._chunks + (0 if self._taken is not None else self._stepper.chunks)

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
