"""`ByteLM` and `ByteState`: the one interface behind which every model predicts the next byte.

Native models, converted token models, ensembles and n-gram baselines implement it; generation,
infilling, scoring, compression, evaluation and serving are written against it, once.

`ByteLM` is a template method: its public methods check texts and contexts once and call the hooks
`_start` and `_score` of an implementation. The state is batched, with rows at different lengths;
the single-row `ByteState` is a thin view of a batch of one. States are immutable: `feed`,
`select` and `join` return new states and leave the old ones valid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.scored import scored
from bytelm.vocab import END

# What stands before the text without being part of it: bytes, and names of special symbols.
# e.g. ("fim_prefix", b"def f(", "fim_suffix", b")", "fim_middle")
Context = tuple[bytes | str, ...]
# How a caller may write one: bytes, any sequence of bytes and names, or None for nothing.
ContextLike = bytes | Sequence[bytes | str] | None


class BatchState(ABC):
    """Several independent texts, one per row. Immutable: no method changes it."""

    _lm: ByteLM  # whose state it is

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

    def read_ahead(self, data: Sequence[bytes]) -> ReadAhead:
        """Read data[b] after row b without settling on it: what would come after each of its bytes,
        and the state after as many of them as turn out to be wanted.

        It may stop early: at least one byte of each piece is read that has any. By default the
        bytes are fed one by one; models that can read them in one call do.
        """
        return SteppedReadAhead(self, data)

    @abstractmethod
    def select(self, rows: Sequence[int] | Tensor) -> BatchState:
        """The state of the given rows, in that order; repeats fork a row."""

    @abstractmethod
    def join(self, others: Sequence[BatchState]) -> BatchState:
        """The rows of this state, then those of the others, whatever their lengths.

        `BytelmError` unless all are states of the same `ByteLM`.
        """

    def _with(self, others: Sequence[BatchState]) -> list[Self]:
        """This state and the others, which must be of the same model: what `join` joins."""
        parts = [self]
        for other in others:
            if not isinstance(other, type(self)) or other._lm is not self._lm:
                raise BytelmError("only states of the same model can be joined")
            parts.append(other)
        return parts


class ReadAhead(ABC):
    """Bytes that were read in advance of a state (`BatchState.read_ahead`). Immutable.

    logprobs  one (n, 257) per row, whose first n bytes were read: row i is what comes after i + 1
              of them, as in `BatchState.logprobs`
    """

    def __init__(self, logprobs: Sequence[Tensor]):
        self.logprobs = tuple(logprobs)

    @abstractmethod
    def state(self, counts: Sequence[int]) -> BatchState:
        """The state after the first counts[b] bytes of row b, 0 <= counts[b] <= n. It costs no call
        of the model."""


class SteppedReadAhead(ReadAhead):
    """Bytes fed one by one, each state kept."""

    def __init__(self, state: BatchState, data: Sequence[bytes]):
        assert len(data) == state.rows, f"{len(data)} pieces for {state.rows} rows"
        self._states = [state]
        for i in range(max(map(len, data), default=0)):
            self._states.append(self._states[-1].feed([piece[i : i + 1] for piece in data]))
        super().__init__(steps_of_rows(self._states, [len(piece) for piece in data]))

    def state(self, counts: Sequence[int]) -> BatchState:
        return choose_rows(self._states, counts)


def steps_of_rows(states: Sequence[BatchState], counts: Sequence[int]) -> list[Tensor]:
    """(counts[b], 257) per row b: its log-probs in the states after the first."""
    after = [state.logprobs() for state in states]
    return [torch.stack([each[b] for each in after[: n + 1]])[1:] for b, n in enumerate(counts)]


def choose_rows(states: Sequence[BatchState], which: Sequence[int]) -> BatchState:
    """The state whose row b is row b of states[which[b]]; all are of one model, of as many rows."""
    different = sorted(set(which))
    if len(different) == 1:
        return states[different[0]]
    rows = [[b for b, i in enumerate(which) if i == wanted] for wanted in different]
    first, *others = (states[i].select(some) for i, some in zip(different, rows, strict=True))
    order = [b for some in rows for b in some]
    return first.join(others).select([order.index(b) for b in range(len(which))])


class ByteState:
    """One text and what may come next. Immutable.

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

    What is impossible has log-probability minus infinity, in `logprobs`, `feed` and `score` alike:
    an outcome is -inf in `logprobs` if and only if the text with it is. Nothing follows a text of
    probability zero: its `logprob` and all 257 of its `logprobs` are -inf, as is every score after
    the impossible byte. (Only there a row does not sum to 1.) What is not a distribution (NaN from
    broken weights) is a `BytelmError`, as is asking to continue a text of probability zero; a model
    may also refuse, by name, to be fed a byte for which it has no symbol at all.

    Public methods check their arguments and normalise contexts, once, for every implementation.
    An implementation supplies `_start`; `_score` has a generic stepwise implementation that faster
    ones override. `window` and `stride` say how a long text is read: with at most `window` bytes of
    context, dropped `stride` at a time; None = no limit.
    """

    window: int | None = None
    stride: int | None = None
    # Whether a context of bytes is the beginning of the text; else it is a source of its own, which
    # an encoder reads.
    context_is_text: bool = True
    # What the model's tokenizer puts before a text and which is not part of it (the dummy blank).
    dummy_prefix: bytes = b""

    @property
    def ends(self) -> Collection[str] | None:
        """Names of the special symbols that end a text; None if the model does not tell."""
        return None

    @property
    def specials(self) -> Mapping[str, int]:
        """Names of special symbols that a context may hold -> the model's own ids."""
        return {}

    @abstractmethod
    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> BatchState:
        """A state of one row per prompt, contexts[b] before prompts[b] and not scored."""

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """(n + 1,) float64 log P in nats per text, contexts[b] before texts[b]: each byte given all
        before it, then the end."""
        return [self._steps(text, given) for text, given in zip(texts, contexts, strict=True)]

    def _steps(self, text: bytes, context: Context) -> Tensor:
        """`_score` of one text, read off the distributions."""
        state = self._start([b""], [context])
        scores = []
        for byte in text:
            scores.append(state.logprobs()[0, byte].cpu().double())
            state = state.feed([bytes([byte])])
            scored(1)
        scores.append(state.logprobs()[0, END].cpu().double())
        return torch.stack(scores)

    def start_batch(
        self, prompts: Sequence[bytes], *, context: Sequence[ContextLike] | None = None
    ) -> BatchState:
        """A state of one row per prompt.

        context: one per prompt; what stands before it and is not scored (see `start`).
        `BytelmError` for a prompt that is not bytes, or a context the model cannot read.
        """
        return self._start(*self.checked("prompt", prompts, context))

    def start(self, prompt: bytes = b"", *, context: ContextLike = None) -> ByteState:
        """The state after `prompt`.

        context: bytes, or a sequence of bytes and special-symbol names, on which everything is
        conditioned and which `logprob` leaves out.
        """
        return ByteState(self.start_batch([prompt], context=[context]))

    def score_batch_with_end(
        self, texts: Sequence[bytes], *, context: Sequence[ContextLike] | None = None
    ) -> list[Tensor]:
        """`score_with_end` of every text, in order; context: one per text."""
        return self._score(*self.checked("text", texts, context))

    def score_with_end(self, data: bytes, *, context: ContextLike = None) -> Tensor:
        """(n + 1,) float64 log P in nats: each byte of `data` given all before it, then the end."""
        return self.score_batch_with_end([data], context=[context])[0]

    def score(self, data: bytes, *, context: ContextLike = None) -> Tensor:
        """(n,) float64 natural-log probability of each byte of `data` given all before it."""
        return self.score_with_end(data, context=context)[:-1]

    def bits_per_byte(self, data: bytes, *, context: ContextLike = None) -> float:
        """-log2 P(data) / len(data), the end symbol not counted; `BytelmError` for empty data."""
        if not data:
            raise BytelmError("bits per byte of empty data is undefined: give at least one byte")
        return -float(self.score(data, context=context).sum()) / math.log(2) / len(data)

    def conditional_score(self, context: bytes, continuation: bytes) -> float:
        """log P(context + continuation) - log P(context), in nats: additive over any cut.

        Both are parts of one text; for a model that reads a source, of one without a source.
        """
        if self.context_is_text:
            return float(self.score(continuation, context=context).sum())
        return float(self.score(context + continuation)[len(context) :].sum())

    def checked(
        self, name: str, texts: Sequence[bytes], context: Sequence[ContextLike] | None
    ) -> tuple[list[bytes], list[Context]]:
        """The texts as bytes, and as many contexts in their normal form."""
        if isinstance(texts, bytes | str):
            raise BytelmError(f"expected a sequence of {name}s, not one {type(texts).__name__}")
        data = [_bytes(name, text) for text in texts]
        if context is None:
            return data, [()] * len(data)
        if isinstance(context, bytes | str):
            raise BytelmError(f"expected one context per {name}, not one for all")
        contexts = [self._context(given) for given in context]
        if len(contexts) != len(data):
            raise BytelmError(f"{len(contexts)} contexts for {len(data)} {name}s")
        return data, contexts

    def _context(self, given: ContextLike) -> Context:
        """A context in its normal form; `BytelmError` if it names a symbol the model lacks."""
        if given is None:
            return ()
        if isinstance(given, bytes):
            return (given,) if given else ()
        if isinstance(given, str):
            raise BytelmError(
                f"a context is bytes or a sequence of bytes and symbol names, not the str "
                f"{given!r}: encode a text, or write [{given!r}] for a symbol"
            )
        for part in given:
            if isinstance(part, str) and part not in self.specials:
                raise BytelmError(unknown_name("special symbol", part, self.specials))
        return tuple(part if isinstance(part, str) else _bytes("context", part) for part in given)


def zero_after_impossible(scores: Tensor) -> Tensor:
    """(n,) log-probs with -inf after the first -inf.

    >>> zero_after_impossible(torch.tensor([-1.0, -torch.inf, -2.0])).tolist()
    [-1.0, -inf, -inf]
    """
    gone = scores.isneginf()
    return scores.masked_fill(gone.cumsum(0) > 0, -torch.inf) if bool(gone.any()) else scores


def require_possible(
    lm: ByteLM, logprobs: Tensor, text: bytes, context: ContextLike = None
) -> None:
    """`BytelmError` unless `logprobs` (257,), those after `text`, are a distribution: it names the
    byte of the text that the model cannot write."""
    highest = float(logprobs.max())
    if math.isnan(highest):
        raise BytelmError(
            f"the {type(lm).__name__} gives log-probabilities that are not numbers: its weights "
            "are broken"
        )
    if highest > -math.inf:
        return
    impossible = lm.score(text, context=context).isneginf().nonzero()
    if not len(impossible):
        raise BytelmError(
            "the model gives probability zero to everything that could follow the text "
            f"{text[-40:]!r}"
        )
    place = int(impossible[0])
    raise BytelmError(
        f"the model gives the byte {text[place]:#04x} at offset {place} of the text probability "
        f"zero ({text[max(0, place - 20) : place]!r} comes before it), so nothing can follow it: "
        "its vocabulary cannot write that byte there; leave it out or use another model"
    )


def plain_bytes(context: Context) -> bytes | None:
    """The bytes that a context stands for; None if it names a special symbol.

    >>> plain_bytes((b"one ", b"two")), plain_bytes((b"one", "fim_suffix"))
    (b'one two', None)
    """
    parts = [part for part in context if isinstance(part, bytes)]
    return b"".join(parts) if len(parts) == len(context) else None


def _bytes(name: str, data: bytes) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        advice = ": encode it, e.g. with .encode()" if isinstance(data, str) else ""
        raise BytelmError(f"a {name} is bytes, not {type(data).__name__}{advice}")
    return bytes(data)
