"""`ByteLM` and `ByteState`: the one interface behind which every model predicts the next byte.

Native models, converted token models, ensembles and n-gram baselines implement it; generation,
infilling, scoring, compression, evaluation and serving are written against it, once.

An implementation supplies a batched state (`start_batch`), whose rows may be at different lengths;
the single-row `ByteState` is a thin view of a batch of one. States are values: `feed` and `select`
return new states and leave the old one valid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name

# What stands before the text without being part of it: bytes, and names of special symbols.
# e.g. ["fim_prefix", b"def f(", "fim_suffix", b")", "fim_middle"]
Context = Sequence[bytes | str]


class BatchState(ABC):
    """Several independent texts, one a row. A value: no method changes it."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """B, the number of rows."""

    @property
    @abstractmethod
    def logprob(self) -> Tensor:
        """(B,) float64, log P (nats) of the bytes each row holds, its prompt included and its
        context excluded."""

    @abstractmethod
    def logprobs(self) -> Tensor:
        """(B, 257) float32 or float64 natural-log probabilities of what comes next in each row:
        column c < 256 is byte c, column 256 is the end of the text. Each row sums to 1 in
        probability (estimands that are lower bounds say so in their class docstring)."""

    @abstractmethod
    def feed(self, data: Sequence[bytes]) -> BatchState:
        """The state after appending data[b] to row b; b"" leaves a row as it is."""

    @abstractmethod
    def select(self, rows: Sequence[int] | Tensor) -> BatchState:
        """The state of the given rows, in that order; repeats fork a row."""


class ByteState:
    """One text and what may come next: a value.

    `logprobs()` is (257,), `logprob` a float in nats over everything fed after the context.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: BatchState):
        assert batch.rows == 1, f"a ByteState is one row, not {batch.rows}"
        self.batch = batch

    def logprobs(self) -> Tensor:
        """(257,) natural-log probabilities: 0-255 bytes, 256 = end of text."""
        return self.batch.logprobs()[0]

    def feed(self, data: bytes) -> ByteState:
        """The state after `data`; this one stays valid."""
        return ByteState(self.batch.feed([data]))

    @property
    def logprob(self) -> float:
        """log P (nats) of the bytes so far, prompt included, context excluded."""
        return float(self.batch.logprob[0])


class ByteLM(ABC):
    """A distribution over byte strings, read one byte at a time.

    Implementations supply `start_batch`; `score_with_end` has a generic stepwise implementation
    that faster ones override. `window` and `stride` say how a long text is read: with at most
    `window` bytes of context, dropped `stride` at a time; None = no limit.
    """

    window: int | None = None
    stride: int | None = None

    @property
    def specials(self) -> Mapping[str, int]:
        """Names of special symbols that a context may hold -> the model's own ids."""
        return {}

    @abstractmethod
    def start_batch(
        self, prompts: Sequence[bytes], *, context: Sequence[Context] | None = None
    ) -> BatchState:
        """A state of one row a prompt; context[b] stands before prompts[b] and is not scored."""

    def start(self, prompt: bytes = b"", *, context: Context | bytes | None = None) -> ByteState:
        """The state after `prompt`.

        context: bytes, or a sequence of bytes and special-symbol names, on which everything is
        conditioned and which `logprob` leaves out.
        """
        if isinstance(context, bytes):
            context = [context]
        return ByteState(self.start_batch([prompt], context=None if context is None else [context]))

    def score_with_end(self, data: bytes, *, context: Context | bytes | None = None) -> Tensor:
        """(n + 1,) float64 log P in nats: each byte of `data` given all before it, then the end."""
        state = self.start(context=context)
        rows = []
        for byte in data:
            rows.append(state.logprobs()[byte].double())
            state = state.feed(bytes([byte]))
        rows.append(state.logprobs()[256].double())
        return torch.stack(rows)

    def score_batch_with_end(
        self, texts: Sequence[bytes], *, contexts: Sequence[Context] | None = None
    ) -> list[Tensor]:
        """`score_with_end` of every text, in order: the batched twin, which faster models override
        to read many texts at once."""
        given = [()] * len(texts) if contexts is None else contexts
        return [
            self.score_with_end(text, context=context)
            for text, context in zip(texts, given, strict=True)
        ]

    def score(self, data: bytes, *, context: Context | bytes | None = None) -> Tensor:
        """(n,) float64 natural-log probability of each byte of `data` given all before it."""
        return self.score_with_end(data, context=context)[:-1]

    def bits_per_byte(self, data: bytes, *, context: Context | bytes | None = None) -> float:
        """-log2 P(data) / len(data), the end symbol not counted; `BytelmError` for empty data."""
        if not data:
            raise BytelmError("bits per byte of empty data is undefined: give at least one byte")
        return -float(self.score(data, context=context).sum()) / math.log(2) / len(data)

    def conditional_score(self, context: bytes, continuation: bytes) -> float:
        """log P(context + continuation) - log P(context), in nats: additive over any cut."""
        return float(self.score(continuation, context=None if not context else [context]).sum())

    def check_context(self, context: Context) -> None:
        """Raise `BytelmError` if a context names a symbol that this model does not have."""
        for part in context:
            if isinstance(part, str) and part not in self.specials:
                raise BytelmError(unknown_name("special symbol", part, self.specials))
