"""`NativeLM`: a causal `ByteModel` behind the `ByteLM` interface.

Three choices a reader may question. Every context begins with BOS, as in training. A text longer
than `window` bytes is read with the context BOS + x[s:t], where s is a function of the position t
alone and jumps by `stride` whenever the window is full: so feeding byte by byte and scoring in
batched windows define the same distribution. And only the first 257 logits (bytes and end) are
normalised, because no other symbol can occur in a text.

A context that names special symbols is pinned: it stands before the window and never slides out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, CausalModel, Hierarchical
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.lm.protocol import BatchState, ByteLM, Context, plain_bytes
from bytelm.lm.reach import Reach
from bytelm.lm.tally import Tally, Unscored, check_pieces, first_byte_logprobs
from bytelm.vocab import END, OUTCOMES, ByteVocab

BATCH_POSITIONS = 16_384  # positions of one scoring forward; bounds memory, not results


@dataclass(frozen=True, slots=True)
class _Row:
    """One text: ids `head` (BOS and pinned context), then `text`; its first `lead` bytes are
    context too."""

    context: Context
    head: tuple[int, ...]
    reach: Reach
    text: bytes
    lead: int
    tally: Tally = Tally()

    @property
    def start(self) -> int:
        return self.reach.start(len(self.text))

    def window_ids(self) -> list[int]:
        """The ids of the whole present context."""
        return [*self.head, *self.text[self.start :]]

    def append(self, lm: NativeLM, piece: bytes, logprob: float) -> _Row:
        """The row after `piece`; `logprob` is that of its first byte."""
        text = self.text + piece
        if len(piece) == 1:
            tally = self.tally.add(logprob)
        else:
            start = len(self.text) - self.lead
            tally = self.tally.defer(Unscored(lm, self.context, text[self.lead :], start))
        return replace(self, text=text, tally=tally)


@dataclass(frozen=True, slots=True)
class _Window:
    """One forward's row: positions lo..hi of row.text are predicted from s on, into `out`."""

    row: _Row
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


class NativeLM(ByteLM):
    """A trained causal model as a distribution over byte strings.

    window    bytes of context at most (BOS and pinned symbols come on top)
    stride    bytes dropped when the window is full; default window // 2
    specials  symbols a context may name; default: all of the model's vocabulary. The loader leaves
              out those that the model never saw in training.
    """

    def __init__(
        self,
        model: ByteModel,
        *,
        window: int,
        stride: int | None = None,
        specials: Mapping[str, int] | None = None,
    ):
        if not isinstance(model, CausalModel):
            raise BytelmError(
                f"{type(model).__name__} is of the {model.family} family: only causal models "
                "predict the next byte"
            )
        if not isinstance(model.vocab, ByteVocab):
            raise BytelmError("this model reads tokens, not bytes: use bytelm.lm.subword.SubwordLM")
        if window < 1:
            raise BytelmError(f"window must be at least 1 byte, not {window}")
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window:
            raise BytelmError(f"stride must be between 1 and the window {window}, not {stride}")
        self.model = model.eval()
        self.window, self.stride = window, stride
        self._reach = Reach(window, stride)
        self._specials = dict(model.vocab.specials if specials is None else specials)

    @property
    def specials(self) -> Mapping[str, int]:
        return self._specials

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> NativeState:
        rows = []
        for prompt, given in zip(prompts, contexts, strict=True):
            row = self._open(given)
            if prompt:
                tally = Tally().defer(Unscored(self, given, prompt, 0))
                row = replace(row, text=row.text + prompt, tally=tally)
            rows.append(row)
        logprobs_BO, state = self._read([row.window_ids() for row in rows])
        return NativeState(self, tuple(rows), state, logprobs_BO)

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        """Full forwards over the windows of all texts, batched by length; equals feeding the texts
        byte by byte up to rounding."""
        rows = [self._open(context) for context in contexts]
        rows = [replace(r, text=r.text + t) for r, t in zip(rows, texts, strict=True)]
        scores = [torch.empty(len(text) + 1, dtype=torch.float64) for text in texts]
        windows = [
            _Window(row, s, lo, hi, out[lo - row.lead : hi - row.lead + 1])
            for row, out in zip(rows, scores, strict=True)
            for s, lo, hi in row.reach.segments(row.lead, len(row.text))
        ]
        windows.sort(key=lambda window: window.width)
        while windows:
            count = max(1, BATCH_POSITIONS // windows[-1].width)
            self._score_windows(windows[-count:])
            del windows[-count:]
        return scores

    @torch.no_grad()
    def _score_windows(self, windows: Sequence[_Window]) -> None:
        """Fill each window's `out`."""
        ids_BL, lengths_B = self._pad([window.ids() for window in windows])
        wanted_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
        for b, window in enumerate(windows):
            wanted_BL[b, window.width - len(window.out) : window.width] = True
        logits_NV = self.model(Batch(ids=ids_BL, lengths=lengths_B)).logits[wanted_BL]
        targets = [target for window in windows for target in window.targets()]
        targets_N = torch.tensor(targets, device=logits_NV.device)
        found_N = _outcomes(logits_NV).gather(1, targets_N[:, None])[:, 0].double().cpu()
        pieces = found_N.split([len(window.out) for window in windows])
        for window, piece in zip(windows, pieces, strict=True):
            window.out.copy_(piece)

    @torch.no_grad()
    def chunk_boundaries(self, data: bytes) -> list[Tensor]:
        """Where a hierarchical model cuts `data`: one bool tensor (n,) a stage, outermost first,
        true at the bytes that begin a chunk, each judged in the window in which it is read.

        `BytelmError` if the model does not cut.
        """
        if not isinstance(self.model, Hierarchical):
            raise BytelmError(
                f"{type(self.model).__name__} has no chunks: only hierarchical models (hnet) cut"
            )
        row = replace(self._open(), text=data)
        pieces: list[list[Tensor]] = []
        for s, lo, hi in self._reach.segments(1, len(data)):
            ids_BL, _ = self._pad([[*row.head, *data[s:hi]]])
            first = len(row.head) + lo - 1 - s
            stages = self.model.chunk_boundaries(ids_BL)
            pieces.append([starts_BL[0, first:].cpu() for starts_BL in stages])
        return [torch.cat(stage) for stage in zip(*pieces, strict=True)]

    def _open(self, context: Context = ()) -> _Row:
        """The row in which nothing but its context has been read."""
        bos = self.model.vocab.bos
        lead = plain_bytes(context)
        if lead is not None:
            return _Row(context, (bos,), self._reach, lead, len(lead))
        pinned = [i for p in context for i in (p if isinstance(p, bytes) else [self._specials[p]])]
        room = self._reach.window - len(pinned)
        if room < 1:
            raise BytelmError(
                f"the context has {len(pinned)} symbols and the model reads {self.window} bytes: "
                "shorten the context (for infilling, the prefix or the suffix)"
            )
        reach = Reach(room, min(self._reach.stride, max(1, room // 2)))
        return _Row(context, (bos, *pinned), reach, b"", 0)

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids (B, L) padded on the right, and lengths (B,), on the model's device."""
        width = max(len(row) for row in rows)
        ids_BL = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        lengths_B = torch.tensor([len(row) for row in rows])
        return ids_BL.to(self.model.device), lengths_B.to(self.model.device)

    @torch.no_grad()
    def _read(self, rows: Sequence[Sequence[int]], state: Any = None) -> tuple[Tensor, Any]:
        """Feed each row its ids, from nothing or from `state`: (log-probs (B, 257), state)."""
        state = self.model.init_state(len(rows)) if state is None else state
        ids_BL, lengths_B = self._pad(rows)
        if ids_BL.shape[1] == 1:
            logits_BV, state = self.model.step(ids_BL[:, 0], state)
        else:
            logits_BV, state = self.model.prefill(ids_BL, lengths_B, state)
        return _outcomes(logits_BV), state


def _outcomes(logits: Tensor) -> Tensor:
    """(..., V) logits to (..., 257) log-probabilities in float32, or float64 if they are."""
    logits = logits[..., :OUTCOMES]
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


class NativeState(BatchState):
    """Rows at different lengths over one batched model state."""

    _lm: NativeLM

    def __init__(self, lm: NativeLM, rows: tuple[_Row, ...], state: Any, logprobs_BO: Tensor):
        self._lm, self._rows, self._state, self._logprobs = lm, rows, state, logprobs_BO

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        return torch.tensor([row.tally.total for row in self._rows], dtype=torch.float64)

    def logprobs(self) -> Tensor:
        return self._logprobs

    def feed(self, data: Sequence[bytes]) -> NativeState:
        check_pieces(data, self.rows)
        if not any(data):
            return self
        gained = first_byte_logprobs(self._logprobs, data)
        rows = tuple(
            row.append(self._lm, piece, gain) if piece else row
            for row, piece, gain in zip(self._rows, data, gained, strict=True)
        )
        slid = [b for b, row in enumerate(rows) if row.start != self._rows[b].start]
        moving = [b for b, piece in enumerate(data) if piece and b not in slid]
        state, logprobs_BO = self._state, self._logprobs
        if len(moving) == self.rows:
            logprobs_BO, state = self._lm._read(data, state)
        elif moving:
            read = self._lm._read([data[b] for b in moving], state.view(torch.tensor(moving)))
            logprobs_BO, state = _put(logprobs_BO, state, moving, *read)
        if slid:  # their context begins elsewhere now: read it afresh
            read = self._lm._read([rows[b].window_ids() for b in slid])
            logprobs_BO, state = _put(logprobs_BO, state, slid, *read)
        return NativeState(self._lm, rows, state, logprobs_BO)

    def select(self, rows: Sequence[int] | Tensor) -> NativeState:
        index = torch.as_tensor(rows, dtype=torch.long)
        kept = tuple(self._rows[b] for b in index.tolist())
        place = index.to(self._logprobs.device)
        return NativeState(self._lm, kept, self._state.select(place), self._logprobs[place])

    def join(self, others: Sequence[BatchState]) -> NativeState:
        parts = self._with(others)
        rows = tuple(row for part in parts for row in part._rows)
        state = self._state.join([part._state for part in parts[1:]])
        return NativeState(self._lm, rows, state, torch.cat([part._logprobs for part in parts]))


def _put(
    logprobs_BO: Tensor, state: Any, rows: list[int], new_logprobs: Tensor, part: Any
) -> tuple[Tensor, Any]:
    """The log-probs and state with `rows` replaced by those of `part`."""
    index = torch.tensor(rows, device=logprobs_BO.device)
    return logprobs_BO.index_copy(0, index, new_logprobs), state.scatter(index, part)
