"""`ModelDrafter`: a small `ByteLM` drafts for a large one, whatever the two are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.decoding import decoding
from bytelm.lm.draft import Draft, Drafter, DraftRequest, DraftSession
from bytelm.lm.protocol import BatchState, ByteLM, Context
from bytelm.vocab import END


class ModelDrafter(Drafter):
    """Draws drafts from `lm` with the sampling of the text they are for.

    least   a draft stops before an outcome of which even the most probable one has less: it would
            hardly be accepted. It depends on what stands before that outcome alone, so that
            acceptance stays exact
    """

    def __init__(self, lm: ByteLM, *, least: float = 0.4):
        if not 0 <= least <= 1:
            raise BytelmError(f"least is a probability, not {least}")
        self.lm, self.least = lm, least

    def check(self, context: Context) -> None:
        self.lm.checked("prompt", [b""], [context])

    def session(self) -> ModelSession:
        return ModelSession(self.lm, self.least)


class ModelSession(DraftSession):
    """Holds a state of the drafting model that has read each text as it was at the last draft; a
    draft itself is read by successors of that state, which are dropped."""

    def __init__(self, lm: ByteLM, least: float):
        self._lm, self._least = lm, least
        self._state: BatchState | None = None
        self._read: dict[int, int] = {}  # key -> bytes that its row of the state has read

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if not requests:
            return []
        self._state = state = self._caught_up(requests)
        rows = decoding(state)
        drafts: list[list[int]] = [[] for _ in requests]
        drawn_from: list[list[Tensor]] = [[] for _ in requests]
        active = set(range(len(requests)))
        while True:
            logprobs_BO = rows.logprobs()
            for b in sorted(active):
                request = requests[b]
                found = self._draw(request, logprobs_BO[b]) if request.room else None
                if found is None:
                    active.discard(b)
                    continue
                outcome, q = found
                drafts[b].append(outcome)
                drawn_from[b].append(q)
                if outcome == END or len(drafts[b]) >= request.room:
                    active.discard(b)
            if not active:
                break
            rows.feed([bytes(drafts[b][-1:]) if b in active else b"" for b in range(len(drafts))])
        greedy = [request.sampling.temperature == 0 for request in requests]
        return [
            Draft(draft, None if sure or not q else torch.stack(q))
            for draft, q, sure in zip(drafts, drawn_from, greedy, strict=True)
        ]

    def _draw(self, request: DraftRequest, logprobs_O: Tensor) -> tuple[int, Tensor] | None:
        """An outcome and the probabilities it was drawn from; None where there is none, or none
        that is probable enough."""
        if logprobs_O.amax() == -torch.inf:
            return None
        if request.sampling.temperature == 0:
            best = int(logprobs_O.argmax())
            return None if logprobs_O[best].exp() < self._least else (best, logprobs_O)
        q = request.sampling.filter(logprobs_O[None])[0]
        q = q / q.sum()
        if q.amax() < self._least:
            return None
        (outcome,) = request.sampling.draw(q[None], np.array([request.random.random()]))
        return outcome, q

    def _caught_up(self, requests: Sequence[DraftRequest]) -> BatchState:
        """The state in which row b has read text b."""
        known = [request for request in requests if request.key in self._read]
        new = [request for request in requests if request.key not in self._read]
        state, order = self._state, list(self._read)
        kept = [order.index(request.key) for request in known]
        if state is not None:
            state = state.select(kept) if kept != list(range(state.rows)) else state
            state = state.feed([r.text[self._read[r.key] :] for r in known]) if known else None
        if new:
            texts, contexts = [r.text for r in new], [r.context for r in new]
            begun = self._lm.start_batch(texts, context=contexts)
            state = begun if state is None else state.join([begun])
        assert state is not None, "there is at least one text"
        self._read = {request.key: len(request.text) for request in (*known, *new)}
        place = {key: b for b, key in enumerate(self._read)}
        wanted = [place[request.key] for request in requests]
        if wanted != list(range(len(wanted))):
            state = state.select(wanted)
            self._read = {request.key: len(request.text) for request in requests}
        return state
