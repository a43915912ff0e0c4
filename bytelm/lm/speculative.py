"""Speculative decoding: one call of the model checks a whole draft, and never changes what is
written (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

The model reads the newest byte and the draft at once, which gives its distribution p at each place.
A drafted outcome x that was drawn from q is taken with probability min(1, p(x) / q(x)); the first
that is not is replaced by one drawn from max(p - q, 0), normalised, and the rest is dropped. So
every outcome has the distribution p, whatever drafted it; p is what the text's options make of the
model's distribution (temperature, filters, constraint), and so may q be.

Where no chance was involved in a draft (a lookup, a greedy model), the rule says: take x with
probability p(x). Choosing as always, and looking whether x was chosen, does just that, and uses the
same random numbers as without a draft: then even a sampled text is the same, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.draft import Draft, Drafter, DraftRequest, DraftSession
from bytelm.lm.protocol import Context
from bytelm.lm.sampling import Sampling
from bytelm.lm.writer import Writer, write_drafted, write_step
from bytelm.vocab import END

_FIRST_REACH = 8  # outcomes of a text's first draft


@dataclass(slots=True, eq=False)
class DraftCounts:
    """What drafts were good for.

    calls      of the model, counted once per text: with a draft to check or without
    drafted    outcomes that were drafted and checked
    accepted   how many of them were taken
    written    outcomes that these texts got in all
    """

    calls: int = 0
    drafted: int = 0
    accepted: int = 0
    written: int = 0

    def plain(self, count: int) -> None:
        """Note that so many texts got an outcome without a draft."""
        self.calls += count
        self.written += count

    @property
    def per_call(self) -> float:
        """Outcomes written per call and text; 1 without any draft."""
        return self.written / self.calls if self.calls else math.nan


@dataclass(slots=True, eq=False)
class DraftedText:
    """What drafting knows of one text: how far its next draft reaches, which doubles whenever a
    draft was accepted whole and falls to what was accepted otherwise."""

    key: int
    context: Context
    prompt: bytes
    writer: Writer
    random: np.random.Generator
    reach: int = _FIRST_REACH

    @classmethod
    def of(cls, key: int, context: Context, prompt: bytes, writer: Writer) -> DraftedText:
        """At its beginning. The drafts' random numbers are the text's own, apart from those with
        which it is chosen."""
        random = np.random.Generator(np.random.Philox(key=[writer.options.seed, 1]))
        return cls(key, context, prompt, writer, random)

    def request(self) -> DraftRequest:
        """What to ask a drafter for."""
        options, written = self.writer.options, self.writer.written
        room = min(self.reach, options.draft_bytes, options.max_bytes - len(written))
        return DraftRequest(
            self.key, self.context, self.prompt + written, room, options.sampling, self.random
        )

    def learn(self, drafted: int, accepted: int) -> None:
        """Take note of how the last draft fared."""
        if not drafted:
            return
        grown = 2 * self.reach if accepted == drafted else max(2, accepted + 1)
        self.reach = min(grown, self.writer.options.draft_bytes)


class Speculation:
    """The drafts of one generation."""

    def __init__(self) -> None:
        self._sessions: dict[int, tuple[Drafter, DraftSession]] = {}
        self.counts = DraftCounts()

    def propose(self, texts: Sequence[DraftedText]) -> dict[int, Draft]:
        """Key -> draft of each text; those of one drafter are asked for together. If it cannot
        draft (its weights are broken), they end with its error."""
        groups: dict[int, list[DraftedText]] = {}
        for text in texts:
            drafter = text.writer.options.draft
            assert drafter is not None, "a text without a drafter is not asked"
            if id(drafter) not in self._sessions:
                self._sessions[id(drafter)] = drafter, drafter.session()
            groups.setdefault(id(drafter), []).append(text)
        drafts: dict[int, Draft] = {}
        for name, members in groups.items():
            session = self._sessions[name][1]
            try:
                found = session.propose([text.request() for text in members])
            except BytelmError as error:
                for text in members:
                    text.writer.fail(error)
                continue
            drafts |= {text.key: draft for text, draft in zip(members, found, strict=True)}
        return drafts

    def verify(
        self,
        text: DraftedText,
        draft: Draft,
        logprobs_NO: Tensor,
        fail: Callable[[Tensor], None],
    ) -> int:
        """Write what the model's distributions after the newest byte and after the drafted ones
        make of a draft; -> how many outcomes were written.

        logprobs (N, 257); fail: what to do if one of them is no distribution.
        """
        outcomes, writer = draft.outcomes, text.writer
        highest = logprobs_NO.amax(-1).tolist()  # NaN if a row has one
        written = accepted = 0
        for i, row_O in enumerate(logprobs_NO):
            if not highest[i] > -math.inf:
                fail(row_O)
            elif i < len(outcomes) and draft.q is not None:
                choose = partial(
                    accept, writer.options.sampling, drafted=outcomes[i], q_O=draft.q[i]
                )
                write_drafted(row_O, writer, choose)
            else:
                write_step(row_O[None], [writer])
            if writer.finish == "error":
                break
            written += 1
            agrees = i < len(outcomes) and writer.newest == outcomes[i]
            accepted += agrees
            if not agrees or writer.finish is not None:
                break
        checked = min(len(outcomes), len(logprobs_NO))
        text.learn(checked, accepted)
        self.counts.calls += 1
        self.counts.drafted += checked
        self.counts.accepted += accepted
        self.counts.written += written
        return written


def readable(draft: Draft, possible_O: Tensor) -> bytes:
    """The bytes of a draft that the model can be fed: up to its end, or a byte that it has no
    symbol for. What is left out is checked all the same, as far as what stands before it is read.
    """
    count = 0
    for outcome in draft.outcomes:
        if outcome == END or not possible_O[outcome]:
            break
        count += 1
    return bytes(draft.outcomes[:count])


def accept(
    sampling: Sampling, logprobs_O: Tensor, uniform: float, *, drafted: int, q_O: Tensor
) -> int:
    """The outcome that takes the place of one drafted from q (257,) probabilities: itself with
    probability min(1, p / q), else one from what p has more than q. uniform: one number in [0, 1),
    which decides both."""
    p_O = sampling.probabilities(logprobs_O[None])[0]
    p, q = float(p_O[drafted]), float(q_O[drafted])
    if uniform * q < p:
        return drafted
    rest_O = (p_O - q_O.to(p_O)).clamp(min=0)
    if not rest_O.any():  # p and q are equal up to rounding
        rest_O = p_O
    again = min((uniform * q - p) / (q - p), math.nextafter(1, 0))  # uniform, given that it came so
    return sampling.draw(rest_O[None], np.array([again]))[0]
