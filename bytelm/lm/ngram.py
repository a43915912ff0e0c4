"""`NgramLM`: a byte n-gram model with interpolated Witten-Bell smoothing.

A baseline anyone can train in a second, a cheap member for ensembles, and a model whose exact
probabilities make tests sharp. Counts live in sorted integer arrays (one per order, a context and
its outcome packed into one key), so training is a sort and scoring a text is a few vectorised
searches. A text is padded in front with end symbols: its first byte has a context like any other.

Witten & Bell 1991, method C:  p(c|h) = (n(h,c) + T(h) p(c|h')) / (N(h) + T(h)),
with T(h) the number of different outcomes seen after h, h' the context without its oldest symbol,
and below order 0 the uniform distribution over the 257 outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.protocol import BatchState, ByteLM, Context, plain_bytes
from bytelm.lm.running_logprob import check_pieces
from bytelm.vocab import END, OUTCOMES

_BITS = 9  # a symbol is one of 257
MAX_ORDER = 6  # a context of 6 and its outcome are 63 bits


@dataclass(frozen=True, eq=False)
class _Table:
    """The counts of one order: (context, outcome) keys and, per context, its total and types."""

    keys: np.ndarray  # sorted int64, context << 9 | outcome
    counts: np.ndarray
    contexts: np.ndarray  # sorted int64
    totals: np.ndarray  # N(h)
    types: np.ndarray  # T(h)

    @classmethod
    def count(cls, keys: np.ndarray) -> _Table:
        keys, counts = np.unique(keys, return_counts=True)
        contexts, first, types = np.unique(keys >> _BITS, return_index=True, return_counts=True)
        return cls(keys, counts, contexts, np.add.reduceat(counts, first), types)

    def blend(self, lower: np.ndarray, context: np.ndarray, outcome: np.ndarray) -> np.ndarray:
        """Interpolate `lower` (N,) with what was seen of outcome (N,) after context (N,)."""
        seen = _lookup(self.keys, self.counts, context << _BITS | outcome)
        total = _lookup(self.contexts, self.totals, context)
        types = _lookup(self.contexts, self.types, context)
        known = total > 0
        return np.where(known, (seen + types * lower) / np.where(known, total + types, 1), lower)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values at `wanted`, 0 where it is not among the sorted keys."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


class NgramLM(ByteLM):
    """Predicts a byte from the `order` symbols before it.

    >>> lm = NgramLM.train([b"abracadabra"] * 20, order=3)
    >>> int(lm.start(b"abr").logprobs().argmax()) == ord("a")
    True
    """

    def __init__(self, tables: Sequence[_Table]):
        self._tables = tuple(tables)
        self.order = len(tables) - 1

    @classmethod
    def train(cls, documents: Iterable[bytes], *, order: int = 5) -> NgramLM:
        """Count the documents (each ends with the end symbol). order: 0 to 6 bytes of context."""
        if not 0 <= order <= MAX_ORDER:
            raise BytelmError(f"order must be between 0 and {MAX_ORDER}, not {order}")
        keys: list[list[np.ndarray]] = [[] for _ in range(order + 1)]
        for document in documents:
            symbols = _symbols(document, order)
            for k, context in enumerate(_contexts(symbols, order)):
                keys[k].append(context << _BITS | symbols[order:])
        if not keys[0]:
            raise BytelmError("there is no document to train on")
        return cls([_Table.count(np.concatenate(part)) for part in keys])

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> NgramState:
        rows = tuple(_Row(self._last(plain_bytes(given) or b"")) for given in contexts)
        return NgramState(self, rows).feed(prompts)

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        leads = [plain_bytes(given) or b"" for given in contexts]
        return [self._scores(text, lead) for text, lead in zip(texts, leads, strict=True)]

    def _scores(self, data: bytes, lead: bytes) -> Tensor:
        """(n + 1,) log P of each byte of `data` and of the end, after the bytes `lead`."""
        symbols = _symbols(lead + data, self.order)
        contexts = [c[len(lead) :] for c in _contexts(symbols, self.order)]
        return torch.from_numpy(self._logprobs(contexts, symbols[self.order + len(lead) :]))

    def _last(self, data: bytes) -> bytes:
        """The end of `data` that predictions depend on."""
        return data[max(0, len(data) - self.order) :]

    def _logprobs(self, contexts: Sequence[np.ndarray], outcome: np.ndarray) -> np.ndarray:
        """log p (N,) of outcome (N,) given, for each order k, its packed context (N,)."""
        p = np.full(outcome.shape, 1 / OUTCOMES)
        for table, context in zip(self._tables, contexts, strict=True):
            p = table.blend(p, context, outcome)
        return np.log(p)


def _symbols(data: bytes, order: int) -> np.ndarray:
    """int64 symbols of a text: `order` ends in front, its bytes, and its end."""
    edge = np.full(order, END, dtype=np.int64)
    return np.concatenate([edge, np.frombuffer(data, np.uint8), [END]])


def _contexts(symbols: np.ndarray, order: int) -> list[np.ndarray]:
    """For k = 0..order: the k symbols before each position from `order` on, packed into int64."""
    packed = [np.zeros(len(symbols) - order, dtype=np.int64)]
    for k in range(1, order + 1):
        oldest = symbols[order - k : len(symbols) - k]
        packed.append(oldest << _BITS * (k - 1) | packed[-1])
    return packed


@dataclass(frozen=True, slots=True)
class _Row:
    tail: bytes  # the last bytes read, context included, at most `order` of them
    logprob: float = 0.0


class NgramState(BatchState):
    """Rows of a few bytes each: an n-gram model forgets the rest."""

    _lm: NgramLM

    def __init__(self, lm: NgramLM, rows: tuple[_Row, ...]):
        self._lm, self._rows = lm, rows

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        return torch.tensor([row.logprob for row in self._rows], dtype=torch.float64)

    def logprobs(self) -> Tensor:
        order = self._lm.order
        packed = [_contexts(_symbols(row.tail, order), order) for row in self._rows]
        contexts = [np.repeat([row[k][-1] for row in packed], OUTCOMES) for k in range(order + 1)]
        outcome = np.tile(np.arange(OUTCOMES), self.rows)
        return torch.from_numpy(self._lm._logprobs(contexts, outcome)).view(-1, OUTCOMES)

    def feed(self, data: Sequence[bytes]) -> NgramState:
        check_pieces(data, self.rows)
        rows = zip(self._rows, data, strict=True)
        return NgramState(self._lm, tuple(self._append(r, p) if p else r for r, p in rows))

    def _append(self, row: _Row, piece: bytes) -> _Row:
        gained = float(self._lm._scores(piece, row.tail)[:-1].sum())
        return _Row(self._lm._last(row.tail + piece), row.logprob + gained)

    def select(self, rows: Sequence[int] | Tensor) -> NgramState:
        return NgramState(self._lm, tuple(self._rows[int(b)] for b in rows))

    def join(self, others: Sequence[BatchState]) -> NgramState:
        return NgramState(self._lm, tuple(r for part in self._with(others) for r in part._rows))
