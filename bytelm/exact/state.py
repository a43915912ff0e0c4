"""`ConvertedState`: several texts under conversion, the batched state of a `ByteConverter`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.advance import advance
from bytelm.exact.draft import prefetch_likely
from bytelm.exact.possible import predict
from bytelm.exact.text_beam import TextBeam
from bytelm.lm.protocol import BatchState, ByteLM, ReadAhead
from bytelm.vocab import OUTCOMES


@dataclass(frozen=True, slots=True)
class ConvertedText:
    """One text: its beam, and what its context took of the beam's running logs (nats)."""

    beam: TextBeam
    context_logprob: float
    context_lower: float


class ConvertedState(BatchState):
    """Several texts under conversion. Immutable.

    Besides the `ByteLM` interface: `log_lower`, (B,) log mass of the live hypotheses (a lower bound
    on the prefix probability of the estimand), `log_dropped`, (B,) log of a bound on what pruning
    gave up (P <= lower + dropped), and `hypotheses`, the number of live hypotheses of each row.
    """

    def __init__(self, lm: ByteLM, texts: Sequence[ConvertedText]):
        self._lm = lm
        self.texts = tuple(texts)

    @property
    def beams(self) -> list[TextBeam]:
        """The beam of each row."""
        return [text.beam for text in self.texts]

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def logprob(self) -> Tensor:
        return _column([_less(t.beam.logprob, t.context_logprob) for t in self.texts])

    @property
    def log_lower(self) -> Tensor:
        """(B,) log of a lower bound on the prefix probability; equal to it if nothing is pruned."""
        return _column([_less(t.beam.log_lower, t.context_lower) for t in self.texts])

    @property
    def log_dropped(self) -> Tensor:
        """(B,) log of an upper bound on the probability that pruning lost."""
        return _column([_less(t.beam.log_dropped, t.context_lower) for t in self.texts])

    @property
    def hypotheses(self) -> list[int]:
        """The number of live hypotheses of each row before the next byte."""
        predict(self.beams)
        return [len(beam.expanded().hypotheses) for beam in self.beams]

    def logprobs(self) -> Tensor:
        keep_alive = prefetch_likely(self.beams)
        predict(self.beams)
        del keep_alive
        return torch.stack([torch.from_numpy(beam.logprobs()) for beam in self.beams])

    def feed(self, data: Sequence[bytes]) -> ConvertedState:
        if len(data) != self.rows:
            raise BytelmError(f"feed got {len(data)} byte strings for {self.rows} rows")
        beams = advance(self.beams, data)
        fed = [replace(text, beam=beam) for text, beam in zip(self.texts, beams, strict=True)]
        return ConvertedState(self._lm, fed)

    def read_ahead(self, data: Sequence[bytes]) -> ConvertedReadAhead:
        """In few calls: the token prefixes that the tokenizer tells are evaluated together."""
        if len(data) != self.rows:
            raise BytelmError(f"read_ahead got {len(data)} byte strings for {self.rows} rows")
        return ConvertedReadAhead(self, data)

    def select(self, rows: Sequence[int] | Tensor) -> ConvertedState:
        return ConvertedState(self._lm, [self.texts[int(i)] for i in rows])

    def join(self, others: Sequence[BatchState]) -> ConvertedState:
        parts = self._with(others)
        return ConvertedState(self._lm, [text for part in parts for text in part.texts])

    def replace(self, rows: Sequence[int], part: ConvertedState) -> ConvertedState:
        """This state with `rows` replaced by those of `part`."""
        texts = list(self.texts)
        for row, text in zip(rows, part.texts, strict=True):
            texts[row] = text
        return ConvertedState(self._lm, texts)


class ConvertedReadAhead(ReadAhead):
    """The beams after each byte, with their predictions."""

    def __init__(self, before: ConvertedState, data: Sequence[bytes]):
        self._before = before
        self._beams = [[beam] for beam in before.beams]
        advance(before.beams, data, visited=self._beams)
        super().__init__(
            [
                torch.from_numpy(
                    np.array([beam.logprobs() for beam in beams]).reshape(-1, OUTCOMES)
                )
                for _, *beams in self._beams
            ]
        )

    def state(self, counts: Sequence[int]) -> ConvertedState:
        rows = zip(self._before.texts, self._beams, counts, strict=True)
        texts = [replace(text, beam=beams[count]) for text, beams, count in rows]
        return ConvertedState(self._before._lm, texts)


def _less(log_whole: float, log_context: float) -> float:
    """log of a ratio: -inf where the whole is impossible, whatever the context."""
    return log_whole if log_whole == -math.inf else log_whole - log_context


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
