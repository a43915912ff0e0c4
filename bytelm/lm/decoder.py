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
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bytelm.arch.base import Decoder
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.lm.decoder_rows import Row, Window
from bytelm.lm.protocol import (
    BatchState,
    ByteLM,
    Context,
    ReadAhead,
    zero_after_impossible,
)
from bytelm.lm.running_logprob import RunningLogProb, Unscored, check_pieces, first_byte_logprobs
from bytelm.lm.scored import scored
from bytelm.lm.sliding_context import SlidingContext
from bytelm.vocab import OUTCOMES, ByteVocab

M = TypeVar("M", bound=Decoder)

MOST_UNREAD = 64  # bytes that a state may leave to the next call of the model
BATCH_POSITIONS = 16_384  # positions of one forward pass; bounds memory, not results
_PAIRS = 1 << 25  # pairs of positions that see each other, of one pass over a part of a text


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
            Window(row, s, lo, hi, out[lo - row.lead : hi - row.lead + 1])
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
    def _score_windows(self, windows: Sequence[Window]) -> None:
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
        """Feed each row of `state` its ids: (log-probs (B, 257), state). Long ones are fed block by
        block, so that what is computed at once is bounded."""
        longest = max(len(row) for row in rows)
        positions = min(BATCH_POSITIONS, _PAIRS // max(longest, 1))
        block = max(1, positions // len(rows))
        logits_BV, state = self._read_block([row[:block] for row in rows], state)
        for at in range(block, longest, block):
            going = [b for b, row in enumerate(rows) if len(row) > at]
            ids = [rows[b][at : at + block] for b in going]
            if len(going) == len(rows):
                logits_BV, state = self._read_block(ids, state)
            else:
                part = state.view(torch.tensor(going, device=logits_BV.device))
                read = self._read_block(ids, part)
                logits_BV, state = _put(logits_BV, state, going, *read)
        return outcomes(logits_BV), state

    def _read_block(self, rows: Sequence[Sequence[int]], state: Any) -> tuple[Tensor, Any]:
        """`_read` in one pass, to logits (B, V)."""
        ids_BL, lengths_B = self._pad(rows)
        if ids_BL.shape[1] == 1:
            return self.model.step(ids_BL[:, 0], state)
        return self.model.prefill(ids_BL, lengths_B, state)

    @torch.no_grad()
    def _read_all(
        self, rows: Sequence[Sequence[int]], lasts: Sequence[int], state: Any
    ) -> tuple[list[Tensor], Any]:
        """As `_read`, with the log-probs (lasts[b], 257) after each of the last ids of row b."""
        ids_BL, lengths_B = self._pad(rows)
        logits_BLV, state = self.model.extend(ids_BL, lengths_B, state)
        wanted = [
            logits_BLV[b, len(row) - last : len(row)]
            for b, (row, last) in enumerate(zip(rows, lasts, strict=True))
        ]
        return list(outcomes(torch.cat(wanted)).split(list(lasts))), state


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
        pieces = [row.unread + piece for row, piece in zip(self._rows, data, strict=True)]
        if len(moving) == self.rows:
            logprobs_BO, state = self._lm._read(pieces, state)
        elif moving:
            read = self._lm._read(
                [pieces[b] for b in moving],
                state.view(torch.tensor(moving, device=logprobs_BO.device)),
            )
            logprobs_BO, state = _put(logprobs_BO, state, moving, *read)
        if slid:  # their context begins elsewhere now: read it again
            again = [rows[b] for b in slid]
            read = self._lm._read([row.window_ids() for row in again], self._lm._fresh(again))
            logprobs_BO, state = _put(logprobs_BO, state, slid, *read)
        rows, logprobs_BO = without_impossible(rows, data, logprobs_BO)
        return DecoderState(self._lm, rows, state, logprobs_BO)

    def read_ahead(self, data: Sequence[bytes]) -> ReadAhead:
        """In one call; a piece before which the window slides is read up to its first byte."""
        check_pieces(data, self.rows)
        return DecoderReadAhead(self, data)

    def caught_up(self) -> DecoderState:
        """The same with nothing unread."""
        behind = [b for b, row in enumerate(self._rows) if row.unread]
        if not behind:
            return self
        index = torch.tensor(behind, device=self._logprobs.device)
        unread = [self._rows[b].unread for b in behind]
        _, part = self._lm._read(unread, self._state.view(index))
        rows = tuple(replace(row, unread=b"") for row in self._rows)
        return DecoderState(self._lm, rows, self._state.scatter(index, part), self._logprobs)

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
    scores_BO: Tensor, state: Any, rows: list[int], new_scores: Tensor, part: Any
) -> tuple[Tensor, Any]:
    """The scores and state with `rows` replaced by those of `part`."""
    index = torch.tensor(rows, device=scores_BO.device)
    return scores_BO.index_copy(0, index, new_scores), state.scatter(index, part)


class DecoderReadAhead(ReadAhead):
    """Bytes read in one call of the model.

    A row that keeps only some of them goes back to the state before them, with those it keeps as
    `Row.unread`: the next call reads them again, whatever kind of state the model has.
    """

    def __init__(self, before: DecoderState, data: Sequence[bytes]):
        self._before, self._after = before, before._state
        pairs = list(zip(before._rows, data, strict=True))
        self._pieces = [row.readable_ahead(piece) for row, piece in pairs]
        self._found = [before._logprobs[:0]] * before.rows
        for slides in (False, True):
            which = [b for b, (row, piece) in enumerate(pairs) if piece and row.slides == slides]
            if which:
                self._read(which, slides=slides)
        for b, piece in enumerate(self._pieces):
            self._found[b] = self._found[b].masked_fill(self._gone(b, piece)[:, None], -torch.inf)
        super().__init__(self._found)

    def _read(self, which: Sequence[int], *, slides: bool) -> None:
        """Read the pieces of some rows, all of which slide or do not."""
        lm, before = self._before._lm, self._before
        rows, pieces = [before._rows[b] for b in which], [self._pieces[b] for b in which]
        pairs = list(zip(rows, pieces, strict=True))
        ids: list[Sequence[int]] = [row.unread + piece for row, piece in pairs]
        index = torch.tensor(which, device=before._logprobs.device)
        state = self._after if len(which) == before.rows else self._after.view(index)
        if slides:
            ids = [replace(row, text=row.text + piece).window_ids() for row, piece in pairs]
            state = lm._fresh(rows)
        found, part = lm._read_all(ids, [len(piece) for piece in pieces], state)
        whole = len(which) == before.rows
        self._after = part if whole else self._after.scatter(index, part)
        for b, logprobs in zip(which, found, strict=True):
            self._found[b] = logprobs

    def _gone(self, b: int, piece: bytes) -> Tensor:
        """(n,) bool: whether row b has read an impossible byte after each byte of a piece."""
        never_O = self._before._logprobs[b].isneginf()
        return never_O[list(piece)].cumsum(0) > 0

    def state(self, counts: Sequence[int]) -> DecoderState:
        before, after, kept = (
            self._before,
            self._after,
            list(zip(self._pieces, counts, strict=True)),
        )
        stays = [b for b, (piece, count) in enumerate(kept) if count < len(piece)]
        anew = [b for b, row in enumerate(before._rows) if row.slides and b not in stays]
        state = after
        if stays:  # back to what was before, but for rows that were read from scratch
            index = torch.tensor(anew, dtype=torch.long, device=before._logprobs.device)
            state = before._state.scatter(index, after.view(index)) if anew else before._state
        rows, logprobs = [], []
        for b, (row, (piece, count)) in enumerate(zip(before._rows, kept, strict=True)):
            steps = torch.cat([before._logprobs[b, None], self._found[b]])
            taken = piece[:count]
            gain = steps[range(count), list(taken)].double().sum() if taken else 0.0
            gone = bool(self._gone(b, taken).any())
            unread = row.unread + taken if stays and b not in anew else b""
            rows.append(row.settle(taken, float(gain), impossible=gone, unread=unread))
            logprobs.append(steps[count])
        settled = DecoderState(before._lm, tuple(rows), state, torch.stack(logprobs))
        return settled.caught_up() if max(len(r.unread) for r in rows) > MOST_UNREAD else settled
