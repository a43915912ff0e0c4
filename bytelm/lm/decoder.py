"""`DecoderLM`: a `ByteModel` that writes byte by byte behind the `ByteLM` interface.

What the adapters of causal and of sequence-to-sequence models share; they differ in where the
context of a text goes (`lm/native.py`, `lm/seq2seq.py`). Three choices a reader may question. Every
text begins with BOS, as in training. A text longer than `window` bytes is read with the context
BOS + x[s:t], where s is a function of the position t alone and jumps by `stride` whenever the
window is full: so feeding byte by byte and scoring in batched windows define the same distribution.
And only the first 257 logits (bytes and end) are normalised, because no other symbol can occur in a
text.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bytelm.arch.base import Decoder
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.lm.protocol import BatchState, ByteLM, Context, zero_after_impossible
from bytelm.lm.running_logprob import RunningLogProb, Unscored, check_pieces, first_byte_logprobs
from bytelm.lm.scored import scored
from bytelm.lm.sliding_context import SlidingContext
from bytelm.vocab import END, OUTCOMES, ByteVocab

M = TypeVar("M", bound=Decoder)

BATCH_POSITIONS = 16_384  # positions of one scoring forward; bounds memory, not results


@dataclass(frozen=True, slots=True)
class Row:
    """One text: ids `head` (BOS and pinned context), then `text`; its first `lead` bytes are
    context too. Of a sequence-to-sequence model the context is the source instead."""

    context: Context
    head: tuple[int, ...]
    sliding: SlidingContext
    text: bytes
    lead: int
    running: RunningLogProb = RunningLogProb()
    impossible: bool = False  # the text has probability zero

    @property
    def start(self) -> int:
        return self.sliding.start(len(self.text))

    def window_ids(self) -> list[int]:
        """The ids of the whole present context."""
        return [*self.head, *self.text[self.start :]]

    def append(self, before: DecoderState, b: int, piece: bytes, logprob: float) -> Row:
        """This row, number b of the state `before`, after `piece`; logprob: of its first byte."""
        if len(piece) == 1:
            return replace(self, text=self.text + piece, running=self.running.add(logprob))
        return self.append_unscored(before._lm, piece, before, b)

    def append_unscored(
        self, lm: DecoderLM, piece: bytes, before: DecoderState | None = None, b: int = 0
    ) -> Row:
        """This row after `piece`, whose log P is computed when somebody asks: from row b of the
        state `before`, which holds what stands before it, or with the whole text."""
        if not piece:
            return self
        text = self.text + piece
        start = len(self.text) - self.lead
        block = Unscored(lm, self.context, text[self.lead :], start, before, b)
        return replace(self, text=text, running=self.running.defer(block))


@dataclass(frozen=True, slots=True)
class _Window:
    """One forward's row: positions lo..hi of row.text are predicted from s on, into `out`."""

    row: Row
    s: int
    lo: int
    hi: int
    out: Tensor  # (hi - lo + 1,) float64

    @property
    def width(self) -> int:
        return len(self.row.head) + self.hi - self.s

    def ids(self) -> list[int]:
        return [*self.row.head, *self.row.text[self.s : self.hi]]

    def targets(self) -> list[int]:
        symbols = [*self.row.text[self.lo : self.hi + 1], END]
        return symbols[: self.hi - self.lo + 1]


class DecoderLM(ByteLM, Generic[M]):
    """A trained model of a generating family as a distribution over byte strings.

    window    bytes of the text that are read at most (BOS and pinned symbols come on top)
    stride    bytes dropped when the window is full; default window // 2
    specials  symbols a context may name; default: all of the model's vocabulary. The loader leaves
              out those that the model never saw in training.
    """

    def __init__(
        self,
        model: M,
        *,
        window: int,
        stride: int | None = None,
        specials: Mapping[str, int] | None = None,
    ):
        if not isinstance(model.vocab, ByteVocab):
            raise BytelmError("this model reads tokens, not bytes: use bytelm.lm.subword.SubwordLM")
        self._sliding = SlidingContext.of(window, stride)
        self.model: M = model.eval()
        self.window, self.stride = window, self._sliding.stride
        self._specials = dict(model.vocab.specials if specials is None else specials)

    @abstractmethod
    def _open(self, context: Context) -> Row:
        """The row in which nothing but its context has been read."""

    @abstractmethod
    def _fresh(self, rows: Sequence[Row]) -> Any:
        """A decode state of these rows in which not one id of them has been read."""

    @abstractmethod
    def _batch(self, ids_BL: Tensor, lengths_B: Tensor, rows: Sequence[Row]) -> Batch:
        """What `forward` reads to score windows of these rows."""

    @property
    def specials(self) -> Mapping[str, int]:
        return self._specials

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> DecoderState:
        rows = []
        for prompt, given in zip(prompts, contexts, strict=True):
            row = self._open(given)
            if prompt:
                running = RunningLogProb().defer(Unscored(self, given, prompt, 0))
                row = replace(row, text=row.text + prompt, running=running)
            rows.append(row)
        logprobs_BO, state = self._read([row.window_ids() for row in rows], self._fresh(rows))
        found, logprobs_BO = without_impossible(rows, [row.text for row in rows], logprobs_BO)
        return DecoderState(self, found, state, logprobs_BO)

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """Full forwards over the windows of all texts, batched by length; equals feeding the texts
        byte by byte up to rounding."""
        rows = [self._open(context) for context in contexts]
        rows = [replace(r, text=r.text + t) for r, t in zip(rows, texts, strict=True)]
        scores = [torch.empty(len(text) + 1, dtype=torch.float64) for text in texts]
        windows = [
            _Window(row, s, lo, hi, out[lo - row.lead : hi - row.lead + 1])
            for row, out in zip(rows, scores, strict=True)
            for s, lo, hi in row.sliding.segments(row.lead, len(row.text))
        ]
        windows.sort(key=lambda window: window.width)
        while windows:
            count = max(1, BATCH_POSITIONS // windows[-1].width)
            self._score_windows(windows[-count:])
            del windows[-count:]
        return [zero_after_impossible(score) for score in scores]

    @torch.no_grad()
    def _score_windows(self, windows: Sequence[_Window]) -> None:
        """Fill each window's `out`."""
        ids_BL, lengths_B = self._pad([window.ids() for window in windows])
        wanted_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
        for b, window in enumerate(windows):
            wanted_BL[b, window.width - len(window.out) : window.width] = True
        batch = self._batch(ids_BL, lengths_B, [window.row for window in windows])
        logits_NV = self.model(batch).logits[wanted_BL]
        targets = [target for window in windows for target in window.targets()]
        targets_N = torch.tensor(targets, device=logits_NV.device)
        found_N = outcomes(logits_NV).gather(1, targets_N[:, None])[:, 0].cpu().double()
        pieces = found_N.split([len(window.out) for window in windows])
        for window, piece in zip(windows, pieces, strict=True):
            window.out.copy_(piece)
            scored(len(piece))

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids (B, L >= 1) padded on the right, and lengths (B,), on the model's device."""
        width = max(1, *(len(row) for row in rows))
        ids_BL = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        lengths_B = torch.tensor([len(row) for row in rows])
        return ids_BL.to(self.model.device), lengths_B.to(self.model.device)

    @torch.no_grad()
    def _read(self, rows: Sequence[Sequence[int]], state: Any) -> tuple[Tensor, Any]:
        """Feed each row of `state` its ids: (log-probs (B, 257), state)."""
        ids_BL, lengths_B = self._pad(rows)
        if ids_BL.shape[1] == 1:
            logits_BV, state = self.model.step(ids_BL[:, 0], state)
        else:
            logits_BV, state = self.model.prefill(ids_BL, lengths_B, state)
        return outcomes(logits_BV), state


def outcomes(logits: Tensor) -> Tensor:
    """(..., V) logits to (..., 257) log-probabilities in float32, or float64 if they are.

    `BytelmError` if they are not a distribution (NaN, an infinite logit, all of them -inf)."""
    logits = logits[..., :OUTCOMES]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logprobs = torch.log_softmax(logits, dim=-1)
    if bool(logprobs.isnan().any()):
        raise BytelmError(
            "the model's logits are not finite (NaN or infinite): its weights are broken, as after "
            "training that diverged, or its dtype overflows; load an earlier checkpoint or use "
            "float32"
        )
    return logprobs


def without_impossible(
    rows: Sequence[Row], pieces: Sequence[bytes], logprobs_BO: Tensor
) -> tuple[tuple[Row, ...], Tensor]:
    """The rows after reading `pieces`, and their log-probs (B, 257): all -inf where an impossible
    byte was read. Which bytes are impossible is a matter of the vocabulary (ids without a row of
    the table), hence the same before and after the piece."""
    never_BO = logprobs_BO.isneginf()
    if not bool(never_BO.any()):
        return tuple(rows), logprobs_BO
    never = never_BO.cpu().numpy()
    found = [
        replace(row, impossible=row.impossible or bool(never[b, list(piece)].any()))
        for b, (row, piece) in enumerate(zip(rows, pieces, strict=True))
    ]
    gone_B = torch.tensor([row.impossible for row in found], device=logprobs_BO.device)
    return tuple(found), logprobs_BO.masked_fill(gone_B[:, None], -torch.inf)


class DecoderState(BatchState):
    """Rows at different lengths over one batched model state."""

    _lm: DecoderLM

    def __init__(self, lm: DecoderLM, rows: tuple[Row, ...], state: Any, logprobs_BO: Tensor):
        self._lm, self._rows, self._state, self._logprobs = lm, rows, state, logprobs_BO

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        return torch.tensor([row.running.total for row in self._rows], dtype=torch.float64)

    def logprobs(self) -> Tensor:
        return self._logprobs

    def feed(self, data: Sequence[bytes]) -> DecoderState:
        check_pieces(data, self.rows)
        if not any(data):
            return self
        gained = first_byte_logprobs(self._logprobs, data)
        rows = tuple(
            row.append(self, b, piece, gain) if piece else row
            for b, (row, piece, gain) in enumerate(zip(self._rows, data, gained, strict=True))
        )
        slid = [b for b, row in enumerate(rows) if row.start != self._rows[b].start]
        moving = [b for b, piece in enumerate(data) if piece and b not in slid]
        state, logprobs_BO = self._state, self._logprobs
        if len(moving) == self.rows:
            logprobs_BO, state = self._lm._read(data, state)
        elif moving:
            read = self._lm._read(
                [data[b] for b in moving],
                state.view(torch.tensor(moving, device=logprobs_BO.device)),
            )
            logprobs_BO, state = _put(logprobs_BO, state, moving, *read)
        if slid:  # their context begins elsewhere now: read it again
            again = [rows[b] for b in slid]
            read = self._lm._read([row.window_ids() for row in again], self._lm._fresh(again))
            logprobs_BO, state = _put(logprobs_BO, state, slid, *read)
        rows, logprobs_BO = without_impossible(rows, data, logprobs_BO)
        return DecoderState(self._lm, rows, state, logprobs_BO)

    def select(self, rows: Sequence[int] | Tensor) -> DecoderState:
        index = torch.as_tensor(rows, dtype=torch.long)
        kept = tuple(self._rows[b] for b in index.tolist())
        place = index.to(self._logprobs.device)
        return DecoderState(self._lm, kept, self._state.select(place), self._logprobs[place])

    def join(self, others: Sequence[BatchState]) -> DecoderState:
        parts = self._with(others)
        rows = tuple(row for part in parts for row in part._rows)
        state = self._state.join([part._state for part in parts[1:]])
        return DecoderState(self._lm, rows, state, torch.cat([part._logprobs for part in parts]))


def _put(
    logprobs_BO: Tensor, state: Any, rows: list[int], new_logprobs: Tensor, part: Any
) -> tuple[Tensor, Any]:
    """The log-probs and state with `rows` replaced by those of `part`."""
    index = torch.tensor(rows, device=logprobs_BO.device)
    return logprobs_BO.index_copy(0, index, new_logprobs), state.scatter(index, part)
