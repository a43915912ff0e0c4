"""Writing text with any `ByteLM`: one loop for one prompt or many, streamed or not.

Constraints (well-formed UTF-8, a regular expression) are automata over bytes: each step masks the
257 outcomes and renormalises. That conditions locally, byte by byte; the mass the mask kept is
reported as `log_mass`, the importance weight that corrects it.

Row i of a batch draws its random numbers from its own seed, so it writes what it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.dfa import DEAD, ByteDFA
from bytelm.lm.protocol import ByteLM, ContextLike
from bytelm.lm.regex import regex_dfa
from bytelm.lm.sampling import Sampling
from bytelm.lm.utf8 import CharacterBuffer, open_character, utf8_dfa
from bytelm.vocab import END, OUTCOMES

Finish = Literal["end", "stop", "length", "constraint"]
_ALL = np.ones(OUTCOMES, dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One generated text.

    data      the bytes, without the prompt and without the stop string
    finish    end: the model ended the text; stop: a stop string came; length: `max_bytes` are
              written; constraint: the constraint allows nothing more
    logprob   log P (nats) of what was chosen, under the model itself: untempered, unconstrained,
              the end included when it was chosen
    log_mass  sum over the steps of the log probability (nats) the model gave to the outcomes the
              constraint allows; 0 without a constraint
    """

    data: bytes
    finish: Finish
    logprob: float
    log_mass: float


class _Writer:
    """One row: what it has written, where its constraint stands, its random numbers."""

    def __init__(self, seed: int, dfa: ByteDFA | None, stop: Sequence[bytes], max_bytes: int):
        self.random = np.random.Generator(np.random.Philox(seed))
        self.dfa, self.stop, self.max_bytes = dfa, stop, max_bytes
        self.place = DEAD if dfa is None else dfa.start
        self.data = bytearray()
        self.stop_length = 0
        self.logprob = self.log_mass = 0.0
        self.finish: Finish | None = None
        if max_bytes < 0:
            raise BytelmError(f"max_bytes must be at least 0, not {max_bytes}")
        if dfa is not None and dfa.distance[dfa.start] > max_bytes:
            needed = int(dfa.distance[dfa.start])
            raise BytelmError(
                f"the constraint needs at least {needed} bytes and max_bytes is {max_bytes}"
            )
        self._check_end()

    def _check_end(self) -> None:
        """Finish where nothing more may be written."""
        if self.dfa is not None and not (self.dfa.next_SB[self.place] != DEAD).any():
            self.finish = "constraint"
        elif len(self.data) == self.max_bytes:
            self.finish = "length"

    def mask(self) -> np.ndarray | None:
        """(257,) bool of what may come next; None = anything."""
        if self.dfa is None:
            return None
        return self.dfa.allowed(self.place, self.max_bytes - len(self.data))

    def weigh(self, mass: float) -> None:
        """Note the log probability of what the mask left."""
        if mass == -math.inf:
            raise BytelmError(
                "the model gives probability zero to everything the constraint allows after "
                f"{bytes(self.data[-40:])!r}"
            )
        self.log_mass += min(mass, 0.0)

    def write(self, outcome: int, logprob: float) -> bytes:
        """Take an outcome of that log P; -> the byte to feed, b"" at the end."""
        self.logprob += logprob
        if outcome == END:
            self.finish = "end"
            return b""
        self.data.append(outcome)
        if self.dfa is not None:
            self.place = int(self.dfa.next_SB[self.place, outcome])
        self._check_end()
        for stop in self.stop:
            if self.data.endswith(stop):
                self.finish, self.stop_length = "stop", max(self.stop_length, len(stop))
        return bytes([outcome])

    def settled(self) -> int:
        """How many bytes are certain to be part of the result: no stop string can take them."""
        if self.finish:
            return len(self.data) - self.stop_length
        begun = (
            size
            for stop in self.stop
            for size in range(1, min(len(stop), len(self.data) + 1))
            if self.data.endswith(stop[:size])
        )
        return len(self.data) - max(begun, default=0)

    def result(self) -> Generated:
        assert self.finish is not None, "the row is not finished"
        return Generated(
            data=bytes(self.data[: self.settled()]),
            finish=self.finish,
            logprob=self.logprob,
            log_mass=self.log_mass,
        )


def generate_batch(
    lm: ByteLM,
    prompts: Sequence[bytes],
    *,
    max_bytes: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[bytes] = (),
    seed: int = 0,
    utf8: bool = False,
    regex: str | bytes | None = None,
    context: Sequence[ContextLike] | None = None,
) -> list[Generated]:
    """Continue every prompt. Row i uses the seed `seed + i`, so it writes what
    `generate(lm, prompts[i], seed=seed + i)` writes.

    max_bytes    at most this many bytes a row, the stop string included
    temperature, top_k, top_p, min_p   see `Sampling`
    stop         byte strings that end a row and are left out of the result
    utf8         only well-formed UTF-8 (counted from an unfinished character of the prompt on)
    regex        the result as a whole must match; `str`: over characters, `bytes`: over bytes
    context      one per row: what stands before the prompt, special symbols by name
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    writers = [
        _Writer(seed + i, _constraint(prompt, utf8, regex), _stops(stop), max_bytes)
        for i, prompt in enumerate(prompts)
    ]
    for _ in _run(lm, prompts, context, writers, sampling):
        pass
    return [writer.result() for writer in writers]


@overload
def generate(
    lm: ByteLM,
    prompt: bytes = ...,
    *,
    max_bytes: int = ...,
    temperature: float = ...,
    top_k: int = ...,
    top_p: float = ...,
    min_p: float = ...,
    stop: Sequence[bytes] = ...,
    seed: int = ...,
    utf8: bool = ...,
    regex: str | bytes | None = ...,
    context: ContextLike = ...,
    stream: Literal[False] = ...,
) -> bytes: ...
@overload
def generate(
    lm: ByteLM,
    prompt: bytes = ...,
    *,
    max_bytes: int = ...,
    temperature: float = ...,
    top_k: int = ...,
    top_p: float = ...,
    min_p: float = ...,
    stop: Sequence[bytes] = ...,
    seed: int = ...,
    utf8: bool = ...,
    regex: str | bytes | None = ...,
    context: ContextLike = ...,
    stream: Literal[True],
) -> Iterator[bytes]: ...
def generate(
    lm: ByteLM,
    prompt: bytes = b"",
    *,
    max_bytes: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[bytes] = (),
    seed: int = 0,
    utf8: bool = False,
    regex: str | bytes | None = None,
    context: ContextLike = None,
    stream: bool = False,
) -> bytes | Iterator[bytes]:
    """The bytes that follow `prompt` (an iterator over pieces of them with stream=True).

    The options are those of `generate_batch`, which also says how each text ended.

    >>> from bytelm.lm.ngram import NgramLM
    >>> lm = NgramLM.train([b"to be or not to be"], order=4)
    >>> generate(lm, b"to be or", max_bytes=7, temperature=0)
    b' not to'
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    writer = _Writer(seed, _constraint(prompt, utf8, regex), _stops(stop), max_bytes)
    pieces = _pieces(writer, _run(lm, [prompt], [context], [writer], sampling))
    return pieces if stream else b"".join(pieces)


def _stops(stop: Sequence[bytes]) -> list[bytes]:
    stops = [stop] if isinstance(stop, bytes) else list(stop)
    if not all(stops):
        raise BytelmError("a stop string must have at least one byte")
    return stops


def _constraint(prompt: bytes, utf8: bool, regex: str | bytes | None) -> ByteDFA | None:
    """The automaton of what may follow `prompt`."""
    unfinished = open_character(prompt) if utf8 else b""
    return _constraint_after(unfinished, utf8, regex)


@lru_cache(maxsize=64)
def _constraint_after(unfinished: bytes, utf8: bool, regex: str | bytes | None) -> ByteDFA | None:
    text = utf8_dfa().starting_at(utf8_dfa().run(unfinished)) if utf8 else None
    if regex is None:
        return text
    match = regex_dfa(regex)
    return match if text is None else text.intersect(match)


def _pieces(writer: _Writer, steps: Iterator[None]) -> Iterator[bytes]:
    """What `writer` has settled after each step, in whole characters."""
    buffer = CharacterBuffer()
    shown = 0
    for _ in steps:
        settled = writer.settled()
        if piece := buffer.push(bytes(writer.data[shown:settled])):
            yield piece
        shown = max(shown, settled)
    if piece := buffer.flush():
        yield piece


def _run(
    lm: ByteLM,
    prompts: Sequence[bytes],
    context: Sequence[ContextLike] | None,
    writers: Sequence[_Writer],
    sampling: Sampling,
) -> Iterator[None]:
    """Step all writers until each is finished; yields after every step."""
    active = [i for i, writer in enumerate(writers) if not writer.finish]
    if not active:
        return
    chosen = [None] * len(prompts) if context is None else context
    state = lm.start_batch([prompts[i] for i in active], context=[chosen[i] for i in active])
    rows = [writers[i] for i in active]
    while True:
        fed = _step(state.logprobs(), rows, sampling)
        yield
        left = [b for b, writer in enumerate(rows) if not writer.finish]
        if not left:
            return
        if len(left) < len(rows):
            state, rows = state.select(left), [rows[b] for b in left]
        state = state.feed([fed[b] for b in left])


def _step(logprobs_BO: Tensor, rows: Sequence[_Writer], sampling: Sampling) -> list[bytes]:
    """Choose an outcome for every row; -> the bytes to feed."""
    masks = [writer.mask() for writer in rows]
    masked_BO = logprobs_BO
    if any(mask is not None for mask in masks):
        allowed_BO = torch.from_numpy(np.stack([_ALL if m is None else m for m in masks]))
        allowed_BO = allowed_BO.to(logprobs_BO.device)
        masked_BO = logprobs_BO.masked_fill(~allowed_BO, -math.inf)
        for writer, mass in zip(rows, masked_BO.double().logsumexp(-1).tolist(), strict=True):
            writer.weigh(mass)
    uniform = np.array([writer.random.random() for writer in rows])
    outcomes = sampling.choose(masked_BO, uniform)
    index = torch.tensor(outcomes, device=logprobs_BO.device)
    gained = logprobs_BO.gather(1, index[:, None])[:, 0].double().tolist()
    return [w.write(o, gain) for w, o, gain in zip(rows, outcomes, gained, strict=True)]
