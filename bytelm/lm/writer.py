"""One text while it is written: its bytes, its random numbers, where its constraint stands.

And `write_step`, which chooses the next outcome of many of them at once. A constraint masks the 257
outcomes and renormalises. That conditions locally, byte by byte; the mass the mask kept is reported
as `log_mass`, the importance weight that corrects it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.constraint import check_room, combined, is_complete, outcomes
from bytelm.lm.options import GenerateOptions
from bytelm.lm.sampling import Sampling
from bytelm.lm.utf8 import CharacterBuffer
from bytelm.vocab import END, OUTCOMES

Finish = Literal["end", "stop", "length", "constraint", "cancelled", "error"]
_ALL = np.ones(OUTCOMES, dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One generated text.

    data      the bytes, without the prompt and without the stop string
    finish    end: the model ended the text; stop: a stop string came; length: `max_bytes` are
              written; constraint: the constraint allows nothing more; cancelled: the caller ended
              it
    logprob   log P (nats) of what was chosen, under the model itself: untempered, unconstrained,
              the end included when it was chosen
    log_mass  sum over the steps of the log probability (nats) the model gave to the outcomes the
              constraint allows; 0 without a constraint
    """

    data: bytes
    finish: Finish
    logprob: float
    log_mass: float


class Writer:
    """A text that grows by one outcome per step; `BytelmError` if its options cannot be met."""

    width = 1  # rows of the batch

    def __init__(self, prompt: bytes, options: GenerateOptions):
        self.options = options
        self.random = np.random.Generator(np.random.Philox(options.seed))
        self.constraint = combined(
            prompt, utf8=options.utf8, regex=options.regex, constraint=options.constraint
        )
        self.finish: Finish | None = None
        self.error: BytelmError | None = None
        self._newest = b""  # the byte that the model has not read yet
        self._data = bytearray()
        self._may_end: list[bool] = []  # whether the constraint allows the text to end at byte i
        self._shown = CharacterBuffer()
        self._taken = self._stop_length = 0
        self._logprob = self._log_mass = 0.0
        if self.constraint is not None:
            self._place = self.constraint.start(prompt)
            check_room(self.constraint, self._place, options.max_bytes)
        self._check_end()

    def _check_end(self) -> None:
        """Finish where nothing more may be written."""
        if self.constraint is not None and is_complete(self.constraint, self._place):
            self.finish = "constraint"
        elif len(self._data) == self.options.max_bytes:
            self.finish = "length"

    @property
    def next_rows(self) -> list[tuple[int, bytes]]:
        """Which of its rows are continued, and what each is fed: its only row, the newest byte."""
        return [(0, self._newest)]

    @property
    def newest(self) -> int:
        """The last outcome that was written; `END` if the text ended by it."""
        return self._newest[0] if self._newest else END

    @property
    def written(self) -> bytes:
        """All bytes so far, those of a stop string included."""
        return bytes(self._data)

    def mask(self) -> np.ndarray:
        """(257,) bool of what may come next."""
        if self.constraint is None or self.finish is not None:
            return _ALL
        try:
            room = self.options.max_bytes - len(self._data)
            mask = outcomes(self.constraint, self._place, room)
            self._may_end.append(bool(mask[END]))
            return mask
        except BytelmError as error:
            self.fail(error)
            return _ALL

    def weigh(self, mass: float) -> None:
        """Note the log probability of what the mask left; fail if it is nothing."""
        if mass == -math.inf:
            self.fail(
                BytelmError(
                    "the model gives probability zero to everything the constraint allows after "
                    f"{bytes(self._data[-40:])!r}"
                )
            )
        self._log_mass += min(mass, 0.0)

    def write(self, outcome: int, logprob: float) -> None:
        """Take an outcome of that log P; fail where the constraint does."""
        self._logprob += logprob
        self._newest = b""
        if outcome == END:
            self.finish = "end"
            return
        self._newest = bytes([outcome])
        self._data.append(outcome)
        try:
            if self.constraint is not None:
                self._place = self.constraint.advance(self._place, outcome)
            self._check_end()
        except BytelmError as error:
            self.fail(error)
            return
        for stop in self.options.stop:
            if self._data.endswith(stop) and self._may_stop(len(self._data) - len(stop)):
                self.finish, self._stop_length = "stop", max(self._stop_length, len(stop))

    def _may_stop(self, length: int) -> bool:
        """Whether the first `length` bytes alone are a text that the constraint allows."""
        return self.constraint is None or self._may_end[length]

    def fail(self, error: BytelmError) -> None:
        """Finish with an error, which `result` raises."""
        self.finish, self.error = "error", error

    def _settled(self) -> int:
        """How many bytes are certain to be part of the result: no stop string can take them."""
        if self.finish:
            return len(self._data) - self._stop_length
        begun = (
            size
            for stop in self.options.stop
            for size in range(1, min(len(stop), len(self._data) + 1))
            if self._data.endswith(stop[:size])
        )
        return len(self._data) - max(begun, default=0)

    def take(self) -> bytes:
        """What can be shown and was not taken before, in whole characters until the finish."""
        settled = max(self._taken, self._settled())
        piece = self._shown.push(bytes(self._data[self._taken : settled]))
        self._taken = settled
        return piece + self._shown.flush() if self.finish else piece

    def result(self) -> Generated:
        """The finished text; raises the error that ended it."""
        assert self.finish is not None, "the text is not finished"
        if self.error is not None:
            raise self.error
        return Generated(
            data=bytes(self._data[: self._settled()]),
            finish=self.finish,
            logprob=self._logprob,
            log_mass=self._log_mass,
        )


def write_step(logprobs_BO: Tensor, writers: Sequence[Writer]) -> None:
    """Choose the next outcome of each writer from its row of logprobs (B, 257), on the CPU.

    A writer whose constraint cannot be met fails; the others do not notice.
    """
    masked_BO = _masked(logprobs_BO, writers)
    drawn_B = np.array([writer.random.random() for writer in writers])
    groups: dict[Sampling, list[int]] = {}
    for b, writer in enumerate(writers):
        if writer.finish is None:
            groups.setdefault(writer.options.sampling, []).append(b)
    exact_BO = logprobs_BO.numpy()
    for sampling, rows in groups.items():
        if len(rows) == len(writers):
            chosen = sampling.choose(masked_BO, drawn_B)
        else:
            chosen = sampling.choose(masked_BO[rows], drawn_B[rows])
        for b, outcome in zip(rows, chosen, strict=True):
            writers[b].write(outcome, float(exact_BO[b, outcome]))


def write_drafted(logprobs_O: Tensor, writer: Writer, take: Callable[[Tensor, float], int]) -> None:
    """Write the outcome that `take` makes of a draft, given what the constraint leaves of the
    logprobs (257,) and a uniform random number; as `write_step` in all else."""
    masked_BO = _masked(logprobs_O[None], [writer])
    uniform = writer.random.random()
    if writer.finish is None:
        outcome = take(masked_BO[0], uniform)
        writer.write(outcome, float(logprobs_O[outcome]))


def _masked(logprobs_BO: Tensor, writers: Sequence[Writer]) -> Tensor:
    """(B, 257) with what a writer may not write at -inf; notes the mass that is left."""
    if all(writer.constraint is None for writer in writers):
        return logprobs_BO
    allowed_BO = torch.from_numpy(np.stack([writer.mask() for writer in writers]))
    masked_BO = logprobs_BO.masked_fill(~allowed_BO.to(logprobs_BO.device), -math.inf)
    for writer, mass in zip(writers, masked_BO.cpu().double().logsumexp(-1).tolist(), strict=True):
        if writer.constraint is not None:
            writer.weigh(mass)
    return masked_BO
