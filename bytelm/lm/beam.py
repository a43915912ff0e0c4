"""Beam search over any `ByteLM`: the texts of highest probability instead of random ones.

States are immutable and selecting a row twice forks it, so the beam is one batch that is selected
and fed once per byte. With one beam this is greedy decoding. Scores are log P divided by
length ** length_penalty, the end counted as one; 0 ranks by log P itself, which favours short
texts, as probabilities do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.options import GenerateOptions
from bytelm.lm.protocol import ByteLM, ContextLike, require_possible
from bytelm.lm.writer import Finish, Generated
from bytelm.vocab import END, OUTCOMES


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One text of a beam.

    data     the bytes, without the prompt
    logprob  log P (nats) of them, and of the end if `ended`
    score    logprob / length ** length_penalty: what beams are ranked by
    ended    whether the model ended the text; otherwise `max_bytes` did
    """

    data: bytes
    logprob: float
    score: float
    ended: bool


def beam_search(
    lm: ByteLM,
    prompt: bytes = b"",
    *,
    beams: int = 4,
    max_bytes: int = 200,
    length_penalty: float = 0.0,
    context: ContextLike = None,
) -> list[Hypothesis]:
    """The best `beams` texts (at most) found after `prompt`, best first.

    beams           hypotheses kept per byte; 1 is greedy decoding
    max_bytes       at most this many bytes; what has not ended then is cut off there
    length_penalty  above 0, longer texts are ranked higher; at least 0
    context         as in `ByteLM.start`

    >>> from bytelm.lm.ngram import NgramLM
    >>> lm = NgramLM.train([b"to be or not to be"], order=4)
    >>> beam_search(lm, b"to be or", beams=3, max_bytes=7)[0].data
    b' not to'
    """
    search = BeamSearch(beams=beams, max_bytes=max_bytes, length_penalty=length_penalty)
    state = lm.start_batch([prompt], context=[context])
    require_possible(lm, state.logprobs()[0], prompt, context)
    while not search.done:
        search.step(state.logprobs())
        if not search.done:
            state = state.select(search.parents).feed(search.pieces)
    return search.best()


class BeamSearch:
    """One search in progress: unfinished hypotheses, one per row of a state, and finished ones.

    After a `step` that leaves something to search, the rows of the next state are the rows
    `parents` of the last one, fed with `pieces`.
    """

    def __init__(self, *, beams: int, max_bytes: int, length_penalty: float):
        if beams < 1 or max_bytes < 0 or not 0 <= length_penalty < math.inf:
            raise BytelmError(
                "beams must be at least 1, max_bytes and length_penalty at least 0, not "
                f"{beams}, {max_bytes} and {length_penalty}"
            )
        self._beams, self._penalty = beams, length_penalty
        self._max_bytes = max_bytes
        self._longest = max_bytes + 1  # with the end
        self._found: list[Hypothesis] = []
        self._texts, self._totals_B = [b""], torch.zeros(1, dtype=torch.float64)
        self.parents, self.pieces = [0], [b""]
        self.done = False
        self._cut_off()

    def step(self, logprobs_BO: Tensor) -> None:
        """Extend every hypothesis by one outcome. logprobs (B, 257): after each of them."""
        rows, outcomes, totals = self._choose(self._texts, self._totals_B, logprobs_BO)
        if self._settled(totals):
            self.done = True
            return
        self.parents, self.pieces = rows, [bytes([outcome]) for outcome in outcomes]
        texts = [self._texts[row] for row in rows]
        self._texts = [text + piece for text, piece in zip(texts, self.pieces, strict=True)]
        self._totals_B = torch.tensor(totals, dtype=torch.float64)
        self._cut_off()

    def _cut_off(self) -> None:
        """End the search where the texts are as long as they may be."""
        if len(self._texts[0]) < self._max_bytes:
            return
        for text, total in zip(self._texts, self._totals_B.tolist(), strict=True):
            self._add(text, total, ended=False)
        self.done = True

    def _choose(
        self, texts: list[bytes], totals_B: Tensor, logprobs_BO: Tensor
    ) -> tuple[list[int], list[int], list[float]]:
        """The rows to continue, their next bytes and log P after them, best first.

        Of the best candidates, those that end the text are set aside if they are among the first
        `beams`. Every row has one end only, so twice as many candidates always leave enough bytes.
        """
        after_BO = totals_B[:, None] + logprobs_BO.cpu().double()
        # of equal ones the first, as greedy decoding does
        totals, index = after_BO.flatten().sort(descending=True, stable=True)
        totals, index = totals[: 2 * self._beams], index[: 2 * self._beams]
        kept: list[tuple[int, int, float]] = []
        for rank, (total, place) in enumerate(zip(totals.tolist(), index.tolist(), strict=True)):
            row, outcome = divmod(place, OUTCOMES)
            if total == -math.inf:
                break
            if outcome != END:
                kept.append((row, outcome, total))
            elif rank < self._beams:
                self._add(texts[row], total, ended=True)
        rows, outcomes, sums = zip(*kept[: self._beams], strict=True) if kept else ((), (), ())
        return list(rows), list(outcomes), list(sums)

    def _add(self, text: bytes, total: float, *, ended: bool) -> None:
        """Note a finished text."""
        score = self._score(total, len(text) + ended)
        self._found.append(Hypothesis(data=text, logprob=total, score=score, ended=ended))

    def _settled(self, totals: list[float]) -> bool:
        """Whether no unfinished hypothesis can still come among the best `beams`. log P only falls
        and is divided by the longest length at most."""
        if not totals:
            return True
        best = self.best()
        bound = self._score(max(totals), self._longest)
        return len(best) == self._beams and best[-1].score >= bound

    def best(self) -> list[Hypothesis]:
        """The finished ones, best first, at most `beams`."""
        return sorted(self._found, key=lambda h: (-h.score, not h.ended))[: self._beams]

    def _score(self, total: float, length: int) -> float:
        return total / max(length, 1) ** self._penalty


class BeamWriter:
    """The best text of a beam search, for a `Generation`: nothing of it is certain before the end.

    It is what a `Writer` is for a sampled text, with a row of the batch per hypothesis.
    """

    def __init__(self, options: GenerateOptions):
        self.options = options
        self.width = 1  # rows of the batch
        self.finish: Finish | None = None
        self.error: BytelmError | None = None
        self._taken = False
        self._search = BeamSearch(
            beams=options.beams,
            max_bytes=options.max_bytes,
            length_penalty=options.length_penalty,
        )
        self._check_end()

    @property
    def next_rows(self) -> list[tuple[int, bytes]]:
        """Which of its rows are continued, and what each is fed."""
        return list(zip(self._search.parents, self._search.pieces, strict=True))

    def step(self, logprobs_BO: Tensor) -> None:
        """Extend every hypothesis; logprobs (width, 257)."""
        self._search.step(logprobs_BO)
        self._check_end()

    def _check_end(self) -> None:
        if not self._search.done:
            return
        if not self._search.best():
            self.fail(BytelmError("the model gives probability zero to everything"))
            return
        self.finish = "end" if self._search.best()[0].ended else "length"

    def fail(self, error: BytelmError) -> None:
        """Finish with an error, which `result` raises."""
        self.finish, self.error = "error", error

    def take(self) -> bytes:
        """The whole text, once, when it is finished."""
        if self.finish not in ("end", "length") or self._taken:
            return b""
        self._taken = True
        return self._search.best()[0].data

    def result(self) -> Generated:
        """The best text; raises the error that ended the search. Nothing if it was cancelled."""
        assert self.finish is not None, "the text is not finished"
        if self.error is not None:
            raise self.error
        if self.finish == "cancelled":
            return Generated(data=b"", finish="cancelled", logprob=0.0, log_mass=0.0)
        best = self._search.best()[0]
        return Generated(data=best.data, finish=self.finish, logprob=best.logprob, log_mass=0.0)
