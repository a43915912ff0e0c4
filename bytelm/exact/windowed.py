"""`WindowedConverter`: a converted model that reads long texts with a context of bounded length.

The twin of what `NativeLM` does for byte models, with the same rule (`SlidingContext`): byte t is
predicted from the bytes x[s:t] alone, where s is a function of t that jumps by `stride` when the
window is full. So feeding byte by byte and scoring at once define the same distribution, and byte
and subword models trained with the same context are compared on the same context.

A context of bytes is the beginning of the text. One that names special symbols is pinned: it stands
before the window and never slides out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bytelm.exact.converter import ByteConverter
from bytelm.exact.state import ConvertedState
from bytelm.lm.protocol import (
    BatchState,
    ByteLM,
    Context,
    ReadAhead,
    SteppedReadAhead,
    plain_bytes,
    zero_after_impossible,
)
from bytelm.lm.running_logprob import check_pieces
from bytelm.lm.sliding_context import SlidingContext


@dataclass(frozen=True, slots=True)
class _WindowedText:
    """One text, read in windows.

    pinned       the context that stands before every window; empty if there is none
    sliding      which bytes of the text a window holds
    text         all bytes read, a context that is not pinned included
    logprob      log P of those that were not context
    impossible   whether the model cannot write them
    """

    pinned: Context
    sliding: SlidingContext
    text: bytes = b""
    logprob: float = 0.0
    impossible: bool = False

    def context(self) -> Context:
        """What the next byte is predicted from."""
        return (*self.pinned, self.text[self.sliding.start(len(self.text)) :])

    def after(self, piece: bytes, gain: float) -> _WindowedText:
        if not piece:
            return self
        impossible = self.impossible or gain == -math.inf
        logprob = -math.inf if impossible else self.logprob + gain
        return replace(self, text=self.text + piece, logprob=logprob, impossible=impossible)


class WindowedState(BatchState):
    """Rows over one converted state, each in its own window."""

    _lm: WindowedConverter

    def __init__(self, lm: WindowedConverter, rows: Sequence[_WindowedText], inner: ConvertedState):
        self._lm, self._rows, self._inner = lm, tuple(rows), inner

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        return torch.tensor([row.logprob for row in self._rows], dtype=torch.float64)

    def logprobs(self) -> Tensor:
        gone_B = torch.tensor([row.impossible for row in self._rows])
        return self._inner.logprobs().masked_fill(gone_B[:, None], -torch.inf)

    def feed(self, data: Sequence[bytes]) -> WindowedState:
        check_pieces(data, self.rows)
        state, rest = self, list(data)
        while any(rest):
            room = [row.sliding.room(len(row.text)) for row in state._rows]
            state = state._step([piece[:n] for piece, n in zip(rest, room, strict=True)])
            rest = [piece[n:] for piece, n in zip(rest, room, strict=True)]
        return state

    def _step(self, data: Sequence[bytes]) -> WindowedState:
        """`feed` of pieces that the present windows predict; windows slide afterwards."""
        state = self._moved(data, self._inner.feed(data))
        slid = [
            b
            for b, (old, new) in enumerate(zip(self._rows, state._rows, strict=True))
            if old.sliding.start(len(old.text)) != new.sliding.start(len(new.text))
        ]
        if not slid:
            return state
        again = self._lm.read([state._rows[b].context() for b in slid])
        return WindowedState(self._lm, state._rows, state._inner.replace(slid, again))

    def _moved(self, data: Sequence[bytes], inner: ConvertedState) -> WindowedState:
        """The state after pieces that the present windows predict, given the converted one."""
        gains = [
            after - before if before > -math.inf else -math.inf
            for before, after in zip(
                self._inner.logprob.tolist(), inner.logprob.tolist(), strict=True
            )
        ]
        rows = [
            row.after(piece, gain) for row, piece, gain in zip(self._rows, data, gains, strict=True)
        ]
        return WindowedState(self._lm, rows, inner)

    def read_ahead(self, data: Sequence[bytes]) -> ReadAhead:
        """As far as the present windows predict; where one slides at once, one byte of each."""
        check_pieces(data, self.rows)
        room = [row.sliding.room(len(row.text)) - 1 for row in self._rows]
        if any(piece and not n for piece, n in zip(data, room, strict=True)):
            return SteppedReadAhead(self, [piece[:1] for piece in data])
        return WindowedReadAhead(self, [piece[:n] for piece, n in zip(data, room, strict=True)])

    def select(self, rows: Sequence[int] | Tensor) -> WindowedState:
        chosen = [int(i) for i in rows]
        return WindowedState(self._lm, [self._rows[i] for i in chosen], self._inner.select(chosen))

    def join(self, others: Sequence[BatchState]) -> WindowedState:
        parts = self._with(others)
        inner = self._inner.join([part._inner for part in parts[1:]])
        return WindowedState(self._lm, [row for part in parts for row in part._rows], inner)


class WindowedReadAhead(ReadAhead):
    """What the converted state read in advance, within its windows."""

    def __init__(self, before: WindowedState, data: Sequence[bytes]):
        self._before, self._data = before, data
        self._inner = before._inner.read_ahead(data)
        found = zip(before._rows, self._inner.logprobs, strict=True)
        super().__init__(
            [x.masked_fill(torch.tensor(row.impossible), -math.inf) for row, x in found]
        )

    def state(self, counts: Sequence[int]) -> WindowedState:
        data = [piece[:n] for piece, n in zip(self._data, counts, strict=True)]
        return self._before._moved(data, self._inner.state(counts))


class WindowedConverter(ByteLM):
    """A `ByteConverter` read with at most `window` bytes of context, dropped `stride` at a time
    (default window // 2). `BytelmError` unless 1 <= stride <= window.

    >>> from bytelm.exact import TabularLM, convert
    >>> last = TabularLM(lambda h: [0.9, 0.1] if h[-1:] == (0,) else [0.5, 0.5], [b"a", b"b"])
    >>> windowed = WindowedConverter(convert(last), window=2, stride=1)
    >>> [round(p, 4) for p in windowed.score(b"aaab").exp().tolist()]
    [0.5, 0.9, 0.9, 0.1]
    """

    def __init__(self, converter: ByteConverter, *, window: int, stride: int | None = None):
        self.sliding = SlidingContext.of(window, stride)
        self.converter = converter
        self.window, self.stride = window, self.sliding.stride
        self.dummy_prefix = converter.dummy_prefix

    @property
    def specials(self) -> Mapping[str, int]:
        return self.converter.specials

    @property
    def ends(self) -> Collection[str]:
        return self.converter.ends

    def read(self, contexts: Sequence[Context]) -> ConvertedState:
        """The converted state after what each window holds."""
        return self.converter._start([b""] * len(contexts), contexts)

    def _open(self, context: Context) -> _WindowedText:
        """A text of which nothing is read but its context."""
        lead = plain_bytes(context)
        if lead is not None:
            return _WindowedText((), self.sliding, lead)
        pinned = sum(len(part) if isinstance(part, bytes) else 1 for part in context)
        return _WindowedText(context, self.sliding.behind(pinned))

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> WindowedState:
        opened = [self._open(given) for given in contexts]
        inner = self.read([row.context() for row in opened])
        rows = [
            replace(row, impossible=beam.logprob == -math.inf)
            for row, beam in zip(opened, inner.beams, strict=True)
        ]
        return WindowedState(self, rows, inner).feed(prompts)

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        opened = [self._open(given) for given in contexts]
        return [self._scores(text, row) for text, row in zip(texts, opened, strict=True)]

    def _scores(self, data: bytes, opened: _WindowedText) -> Tensor:
        """`_score` of one text, each window in few forward passes."""
        text, scores = opened.text + data, []
        for s, lo, hi in opened.sliding.segments(len(opened.text), len(text)):
            part, context = text[lo : hi + 1], (*opened.pinned, text[s:lo])
            found = self.converter.score_with_end(part, context=context)
            scores.append(found if hi == len(text) else found[:-1])
        return zero_after_impossible(torch.cat(scores))
