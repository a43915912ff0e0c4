"""`ByteConverter`: a tokenized language model as a `ByteLM`.

Three estimands, never mixed (docs/exact.md):

- `all`: the law of "sample tokens, decode": the sum over every token string whose text starts with
  the bytes. A beam of `beam` hypotheses drops those below `epsilon` of the mass; what is kept is a
  lower bound (`log_lower`), what was dropped is bounded (`log_dropped`).
- `canonical`: the sum over covers that stand on a trunk which the tokenizer could have written.
  Nothing is pruned; one model row a byte.
- `canonicalised`: the model first made canonical by construction (tokens that the tokenizer would
  not have written are masked, the rest renormalised). For it, `all` and `canonical` coincide.

`logprobs()` is normalised in every mode and `logprob` is the sum of its steps. On a real model the
modes `all` and `canonical` lose some mass at each step (special tokens, invalid continuations), so
exp(`log_lower`), the prefix probability itself, is somewhat smaller than exp(`logprob`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.exact.fallback import Reserve
from bytelm.exact.frontier import Skeleton
from bytelm.exact.hypothesis import Pruning
from bytelm.exact.models.canonical import CanonicalLM
from bytelm.exact.prefix_tree import Distribution, Trunk, TrunkTree, evaluate
from bytelm.exact.text_beam import Row, open_rows, rehearse
from bytelm.exact.token_lm import TokenLM
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.vocabulary import VocabularyIndex
from bytelm.lm.protocol import BatchState, ByteLM, Context

Mode = Literal["all", "canonical", "canonicalised"]
_MODES = ("all", "canonical", "canonicalised")
_ROWS_A_CALL = 256  # rows of a known text evaluated together: bounds the logits held at once
_REHEARSALS = 6  # rounds of looking for what else a beam will open in a known text
_FORESEEN = 8  # shortest known text for which mode "all" evaluates the canonical trunks up front


class ConvertedState(BatchState):
    """Several texts under conversion. A value.

    Besides the `ByteLM` interface: `log_lower`, (B,) log mass of the live hypotheses (a lower bound
    on the prefix probability of the estimand), `log_dropped`, (B,) log of a bound on what pruning
    gave up (P <= lower + dropped), and `branches`, the number of live hypotheses a row.
    """

    _lm: ByteConverter

    def __init__(
        self, lm: ByteConverter, rows: Sequence[Row], offsets: Sequence[tuple[float, float]]
    ):
        self._lm = lm
        self._rows = list(rows)
        self._offsets = list(offsets)  # (logprob, log_lower) of each row's context

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        return self._column([row.logprob - at for row, (at, _) in self._pairs()])

    @property
    def log_lower(self) -> Tensor:
        """(B,) log of a lower bound on the prefix probability; equal to it if nothing is pruned."""
        return self._column([row.log_lower - at for row, (_, at) in self._pairs()])

    @property
    def log_dropped(self) -> Tensor:
        """(B,) log of an upper bound on the probability that pruning lost."""
        return self._column([row.log_dropped - at for row, (_, at) in self._pairs()])

    @property
    def branches(self) -> list[int]:
        """Live hypotheses of each row before the next byte."""
        open_rows(self._rows)
        return [len(row.opened.branches) for row in self._rows if row.opened is not None]

    def _pairs(self) -> list[tuple[Row, tuple[float, float]]]:
        return list(zip(self._rows, self._offsets, strict=True))

    @staticmethod
    def _column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def logprobs(self) -> Tensor:
        open_rows(self._rows)
        return torch.stack([torch.from_numpy(row.logprobs()) for row in self._rows])

    def feed(self, data: Sequence[bytes]) -> ConvertedState:
        if len(data) != self.rows:
            raise BytelmError(f"feed got {len(data)} byte strings for {self.rows} rows")
        return ConvertedState(self._lm, advance(self._rows, data), self._offsets)

    def select(self, rows: Sequence[int] | Tensor) -> ConvertedState:
        chosen = [int(i) for i in rows]
        return ConvertedState(
            self._lm, [self._rows[i] for i in chosen], [self._offsets[i] for i in chosen]
        )

    def join(self, others: Sequence[BatchState]) -> ConvertedState:
        parts = self._with(others)
        return ConvertedState(
            self._lm,
            [row for part in parts for row in part._rows],
            [offset for part in parts for offset in part._offsets],
        )

    def replace(self, rows: Sequence[int], part: ConvertedState) -> ConvertedState:
        """This state with `rows` replaced by those of `part`."""
        kept, offsets = list(self._rows), list(self._offsets)
        for place, row, offset in zip(rows, part._rows, part._offsets, strict=True):
            kept[place], offsets[place] = row, offset
        return ConvertedState(self._lm, kept, offsets)


class ByteConverter(ByteLM):
    """A token LM read one byte at a time; see the module's text for the modes.

    prefix: bytes that the tokenizer puts before every text and which are not part of it (the dummy
    blank of SentencePiece); P(x) is then P(prefix x) / P(prefix).
    """

    def __init__(
        self,
        lm: TokenLM,
        encoder: Encoder | None,
        *,
        mode: Mode,
        beam: int,
        epsilon: float,
        specials: Mapping[str, int] | None = None,
        prefix: bytes = b"",
    ):
        if mode not in _MODES:
            raise BytelmError(unknown_name("mode", mode, _MODES))
        if mode != "all" and encoder is None:
            raise BytelmError(
                f'mode {mode!r} needs the tokenizer: give `encode`, or use mode="all"'
            )
        if beam < 1 or not 0 <= epsilon < 1:
            raise BytelmError(
                f"beam must be at least 1 and epsilon in [0, 1), not {beam} and {epsilon}"
            )
        self.mode = mode
        self.lm = CanonicalLM(lm, encoder) if mode == "canonicalised" and encoder else lm
        self.encoder = encoder
        self.index = VocabularyIndex(lm.vocab_bytes, lm.eos_ids)
        self.pruning = Pruning(beam, epsilon) if mode == "all" else None
        self._reserve = Reserve.of(self.index)
        self.prefix = prefix
        self._specials = dict(specials or {})

    @property
    def specials(self) -> Mapping[str, int]:
        return self._specials

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> ConvertedState:
        began = [self._begin(parts) for parts in contexts]
        rows = advance([row for row, _ in began], [unscored for _, unscored in began])
        offsets = [(row.logprob, row.log_lower) for row in rows]
        return ConvertedState(self, advance(rows, prompts), offsets)

    def _begin(self, context: Context) -> tuple[Row, bytes]:
        """A row after the context's specials, and the context bytes still to be fed."""
        tokens, text = self._context_tokens(context)
        if self.encoder is not None and self.pruning is None and text:
            # Every canonical encoding has a boundary where encoding may restart, so what stands
            # before it is plain tokens: no row a byte for a long context.
            settled = self.encoder.restart(text, 0)
            tokens += self.encoder.encode(text[:settled])
            text = text[settled:]
        base = TrunkTree(self.lm, self.index).root.walk(tokens)
        base.logprob = 0.0
        skeleton = None if self.encoder is None else Skeleton(self.encoder, base)
        starts = ((base, True),)
        row = Row(
            (),
            starts=starts,
            pruning=self.pruning,
            skeleton=skeleton,
            reserve=self._reserve,
        )
        return row, text

    def _context_tokens(self, context: Context) -> tuple[list[int], bytes]:
        """Ids up to the last special symbol, and the bytes after it. The dummy blank stands at
        the very start only: fill-in-the-middle models are trained without it after a marker."""
        tokens: list[int] = []
        text = self.prefix
        for part in context:
            if isinstance(part, bytes):
                text += part
                continue
            if text and (text != self.prefix or tokens):
                if self.encoder is None:
                    raise BytelmError(
                        f"a context with bytes before the special symbol {part!r} needs the "
                        "tokenizer: give `encode`"
                    )
                tokens += self.encoder.encode(text)
            tokens.append(self._specials[part])
            text = b""
        return tokens, text

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """As `ByteLM._score`, in few forward passes. The trunks of known texts that the tokenizer
        foresees are evaluated together, `_ROWS_A_CALL` bytes at a time, and a context that several
        texts share is read once."""
        different = list(dict.fromkeys(contexts))
        began = self._start([b""] * len(different), different)
        start = dict(zip(different, began._rows, strict=True))
        traces = [[start[context].logprob] for context in contexts]
        rows = advance([start[context] for context in contexts], texts, traces=traces)
        return [
            torch.cat([_steps(trace), torch.tensor([row.log_end()], dtype=torch.float64)])
            for trace, row in zip(traces, rows, strict=True)
        ]


def _steps(trace: list[float]) -> Tensor:
    """Differences of running log-probabilities; -inf after an impossible byte stays -inf."""
    totals = torch.tensor(trace, dtype=torch.float64)
    steps = totals.diff()
    return torch.where(totals[1:] == -math.inf, totals[1:], steps)


def advance(
    rows: Sequence[Row], data: Sequence[bytes], *, traces: Sequence[list[float]] = ()
) -> list[Row]:
    """Feed data[b] to row b, all rows in step; traces[b] collects its log-prob after each byte."""
    rows = list(rows)
    longest = max(map(len, data), default=0)
    size = max(_ROWS_A_CALL // max(len(rows), 1), 1)
    for start in range(0, longest, size):
        chunks = [piece[start : start + size] for piece in data]
        paths = _foresee(rows, chunks)
        held = _evaluate_ahead(rows, chunks, paths)
        for i in range(max(map(len, chunks))):
            active = [b for b, chunk in enumerate(chunks) if i < len(chunk)]
            open_rows([rows[b] for b in active])
            for b in active:
                rows[b] = rows[b].push(chunks[b][i], paths[b][i + 1] if paths[b] else None)
                if traces:
                    traces[b].append(rows[b].logprob)
        del held
    return rows


def _evaluate_ahead(
    rows: Sequence[Row], chunks: Sequence[bytes], paths: Sequence[list[Skeleton]]
) -> list[tuple[Trunk, Distribution]]:
    """Evaluate what reading the chunks will ask for, in few calls: the foreseen trunks, then, for a
    beam, what it opens besides, which a rehearsal finds a few at a time. Trunks hold neither their
    children nor their distributions, so both live as long as the list that is returned."""
    wanted = [trunk for path in paths for skeleton in path[:-1] for trunk, _ in skeleton.here()]
    held = list(zip(wanted, evaluate(wanted), strict=True))
    beams = [b for b, path in enumerate(paths) if path and rows[b].pruning is not None]
    for _ in range(_REHEARSALS if beams else 0):
        wanted = [trunk for b in beams for trunk in rehearse(rows[b], chunks[b])]
        if not wanted:
            break
        held += zip(wanted, evaluate(wanted), strict=True)
    return held


def _foresee(rows: Sequence[Row], chunks: Sequence[bytes]) -> list[list[Skeleton]]:
    """The skeletons before, between and after the bytes of each chunk; empty where they are not
    worth it (mode "all" fed a few bytes) or there is no tokenizer."""
    paths: list[list[Skeleton]] = []
    for row, chunk in zip(rows, chunks, strict=True):
        few = row.pruning is not None and len(chunk) < _FORESEEN
        if row.skeleton is None or few or not chunk:
            paths.append([])
            continue
        skeleton = row.skeleton
        path = [skeleton]
        for byte in chunk:
            path.append(path[-1].push(byte))
        paths.append(path)
    return paths
