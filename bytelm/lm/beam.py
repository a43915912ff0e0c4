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
from bytelm.lm.protocol import ByteLM, ContextLike
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
    if beams < 1 or max_bytes < 0 or not 0 <= length_penalty < math.inf:
        raise BytelmError(
            "beams must be at least 1, max_bytes and length_penalty at least 0, not "
            f"{beams}, {max_bytes} and {length_penalty}"
        )
    search = _Search(beams, max_bytes, length_penalty)
    state = lm.start_batch([prompt], context=[context])
    texts, totals_B = [b""], torch.zeros(1, dtype=torch.float64)
    for _ in range(max_bytes):
        rows, outcomes, totals = search.choose(texts, totals_B, state.logprobs())
        if search.settled(totals):
            return search.best()
        pieces = [bytes([outcome]) for outcome in outcomes]
        state = state.select(rows).feed(pieces)
        texts = [texts[row] + piece for row, piece in zip(rows, pieces, strict=True)]
        totals_B = torch.tensor(totals, dtype=torch.float64)
    for text, total in zip(texts, totals_B.tolist(), strict=True):
        search.add(text, total, ended=False)
    return search.best()


class _Search:
    """The finished hypotheses, and what decides between unfinished ones."""

    def __init__(self, beams: int, max_bytes: int, length_penalty: float):
        self._beams, self._penalty = beams, length_penalty
        self._longest = max_bytes + 1  # with the end
        self._found: list[Hypothesis] = []

    def choose(
        self, texts: list[bytes], totals_B: Tensor, logprobs_BO: Tensor
    ) -> tuple[list[int], list[int], list[float]]:
        """The rows to continue, their next bytes and log P after them, best first.

        Of the best candidates, those that end the text are set aside if they are among the first
        `beams`. Every row has one end only, so twice as many candidates always leave enough bytes.
        """
        after_BO = totals_B[:, None] + logprobs_BO.double().cpu()
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
                self.add(texts[row], total, ended=True)
        rows, outcomes, sums = zip(*kept[: self._beams], strict=True) if kept else ((), (), ())
        return list(rows), list(outcomes), list(sums)

    def add(self, text: bytes, total: float, *, ended: bool) -> None:
        """Note a finished text."""
        score = self._score(total, len(text) + ended)
        self._found.append(Hypothesis(data=text, logprob=total, score=score, ended=ended))

    def settled(self, totals: list[float]) -> bool:
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
