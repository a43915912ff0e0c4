"""`Ensemble`: several `ByteLM`s as one, whatever their vocabularies, since all speak bytes.

Every member reads the same bytes; their distributions over the 257 outcomes are combined by a rule
and normalised exactly, in log space.

  mixture  log sum_k w_k p_k
  bayes    the same with w_k proportional to prior_k P_k(bytes so far): the posterior. So the whole
           is a mixture of the members' distributions over texts, log P = logsumexp_k of the joints
  product  sum_k a_k log p_k, normalised (a geometric mean for a_k = 1/n)
  proxy    log p_base + a (log p_expert - log p_anti), normalised (proxy tuning, Liu et al. 2024)

A product of next-byte distributions is not the product of the distributions over texts: it is
normalised byte by byte, which is what makes it a `ByteLM`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.protocol import BatchState, ByteLM, Context
from bytelm.lm.tally import Tally, Unscored, check_pieces, first_byte_logprobs

How = Literal["mixture", "product", "bayes", "proxy"]
_FLOOR = -100.0  # nats; where proxy's anti-expert gives (almost) nothing, the ratio stays finite


class Ensemble(ByteLM):
    """`how`: see the module. `weights`: mixture and bayes: positive, normalised here, default equal
    (the prior, for bayes); product: powers, default 1/n; proxy: [a], default [1], for the members
    [base, expert, anti-expert].

    >>> from bytelm.lm.ngram import NgramLM
    >>> lms = [NgramLM.train([b"aaaa"], order=1), NgramLM.train([b"bbbb"], order=1)]
    >>> both = Ensemble(lms, how="bayes")
    >>> [round(w, 2) for w in both.posterior(both.start_batch([b"aaa"]))[0].tolist()]
    [1.0, 0.0]
    """

    def __init__(
        self, lms: Sequence[ByteLM], how: How = "mixture", *, weights: Sequence[float] | None = None
    ):
        if how not in get_args(How):
            raise BytelmError(unknown_name("way to combine models", how, get_args(How)))
        if not lms or (how == "proxy" and len(lms) != 3):
            needs = "exactly base, expert and anti-expert" if how == "proxy" else "at least one"
            raise BytelmError(f"a {how} ensemble takes {needs} models, not {len(lms)}")
        self.members = tuple(lms)
        self.how = how
        self._weights = torch.tensor(_weights(how, len(lms), weights), dtype=torch.float64)
        limits = {(lm.window, lm.stride) for lm in lms}
        self.window, self.stride = limits.pop() if len(limits) == 1 else (None, None)

    @property
    def specials(self) -> dict[str, int]:
        """The symbols that every member has, with the first member's ids."""
        first, *others = (lm.specials for lm in self.members)
        return {name: i for name, i in first.items() if all(name in other for other in others)}

    def start_batch(
        self, prompts: Sequence[bytes], *, context: Sequence[Context] | None = None
    ) -> EnsembleState:
        """Bytes of a context are read as text, so that they too move the weights of `bayes`; a
        context with special symbols is nothing a member gave a probability to: it moves none."""
        contexts = [()] * len(prompts) if context is None else list(context)
        rows, leads, pinned = [], [], []
        for given, _ in zip(contexts, prompts, strict=True):
            self.check_context(given)
            text = all(isinstance(part, bytes) for part in given)
            leads.append(b"".join(given) if text else b"")  # type: ignore[arg-type]
            pinned.append(() if text else given)
            rows.append(_Row(given))
        states = tuple(lm.start_batch(leads, context=pinned) for lm in self.members)
        state = EnsembleState(self, states, tuple(rows))
        if self.how == "bayes" and any(leads):
            base = state.logprob.tolist()
            rows = [replace(row, base=lead) for row, lead in zip(rows, base, strict=True)]
            state = EnsembleState(self, states, tuple(rows))
        return state.feed(prompts)

    def score_with_end(self, data: bytes, *, context: Context | bytes | None = None) -> Tensor:
        if self.how in ("product", "proxy"):
            return super().score_with_end(data, context=context)
        context = [context] if isinstance(context, bytes) else context
        log_w = self._weights.log()[:, None]
        if self.how == "mixture":
            scores_KN = torch.stack([m.score_with_end(data, context=context) for m in self.members])
            return (log_w + scores_KN).logsumexp(0)
        lead = b""
        if context is not None and all(isinstance(part, bytes) for part in context):
            lead, context = b"".join(context), None  # type: ignore[arg-type]
        scores_KN = torch.stack(
            [m.score_with_end(lead + data, context=context) for m in self.members]
        )
        joint_N = (log_w + scores_KN.cumsum(1)).logsumexp(0)
        steps_N = torch.diff(joint_N, prepend=joint_N.new_zeros(1))
        return steps_N[len(lead) :]

    def posterior(self, state: EnsembleState) -> Tensor:
        """(B, K) float64 weights of the members in `state`: the posterior for bayes, the fixed
        weights otherwise."""
        return self.log_weights(state.members).exp()

    def log_weights(self, states: Sequence[BatchState]) -> Tensor:
        """(B, K) log weights of the members; for bayes given what they have read."""
        log_w = self._weights.log().expand(states[0].rows, -1)
        if self.how != "bayes":
            return log_w
        return torch.log_softmax(log_w + torch.stack([s.logprob for s in states], 1), dim=1)

    def combine(self, states: Sequence[BatchState]) -> Tensor:
        """(B, 257) float64 normalised log-probs of what comes next."""
        logprobs_KBO = torch.stack([state.logprobs().double().cpu() for state in states])
        if self.how in ("mixture", "bayes"):
            weighted = self.log_weights(states).T[:, :, None] + logprobs_KBO
            return torch.log_softmax(weighted.logsumexp(0), dim=-1)
        if self.how == "product":
            used = self._weights != 0  # 0 * -inf is not a number
            powers = self._weights[used][:, None, None]
            score_BO = (powers * logprobs_KBO[used]).sum(0)
        else:
            base, expert, anti = logprobs_KBO
            ratio = expert - anti.clamp(min=_FLOOR)
            score_BO = base + self._weights[0] * ratio if self._weights[0] else base
        if bool((score_BO.amax(-1) == -math.inf).any()):
            raise BytelmError(
                f"the {self.how} ensemble gives every outcome probability zero: its members "
                "contradict each other; use how='mixture' or 'bayes'"
            )
        return torch.log_softmax(score_BO, dim=-1)


def _weights(how: How, count: int, given: Sequence[float] | None) -> list[float]:
    """The checked weights of an ensemble of `count` members."""
    expected = 1 if how == "proxy" else count
    if given is None:
        return [1.0] if how == "proxy" else [1 / count] * count
    if len(given) != expected or not all(math.isfinite(w) and w >= 0 for w in given):
        raise BytelmError(
            f"weights of a {how} ensemble of {count} models: expected {expected} finite numbers "
            f">= 0, got {list(given)}"
        )
    if sum(given) <= 0 and how != "proxy":
        raise BytelmError("the weights of an ensemble must not all be zero")
    if how in ("product", "proxy"):
        return list(given)
    return [w / sum(given) for w in given]


@dataclass(frozen=True, slots=True)
class _Row:
    context: Context
    data: bytes = b""
    tally: Tally = Tally()  # log P where it is a sum over bytes: every rule but bayes
    base: float = 0.0  # bayes: log P of the context's bytes, which logprob leaves out


class EnsembleState(BatchState):
    """The members' states over the same bytes."""

    def __init__(self, lm: Ensemble, members: tuple[BatchState, ...], rows: tuple[_Row, ...]):
        self._lm, self.members, self._rows = lm, members, rows
        self._combined: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        if self._lm.how == "bayes":
            joint = torch.stack([state.logprob for state in self.members], 1)
            base = torch.tensor([row.base for row in self._rows], dtype=torch.float64)
            return (joint + self._lm._weights.log()).logsumexp(1) - base
        return torch.tensor([row.tally.total for row in self._rows], dtype=torch.float64)

    def logprobs(self) -> Tensor:
        if self._combined is None:
            self._combined = self._lm.combine(self.members)
        return self._combined

    def feed(self, data: Sequence[bytes]) -> EnsembleState:
        check_pieces(data, self.rows)
        if not any(data):
            return self
        members = tuple(state.feed(data) for state in self.members)
        return EnsembleState(self._lm, members, self._advance(data))

    def _advance(self, data: Sequence[bytes]) -> tuple[_Row, ...]:
        """The rows after `data`. Only single bytes need the present distribution."""
        single = self._lm.how != "bayes" and any(len(piece) == 1 for piece in data)
        gained = first_byte_logprobs(self.logprobs(), data) if single else [0.0] * self.rows
        rows = []
        for row, piece, gain in zip(self._rows, data, gained, strict=True):
            text, tally = row.data + piece, row.tally
            if len(piece) == 1:
                tally = tally.add(gain)
            elif piece and self._lm.how != "bayes":
                tally = tally.defer(Unscored(self._lm, row.context, text, len(row.data)))
            rows.append(replace(row, data=text, tally=tally))
        return tuple(rows)

    def select(self, rows: Sequence[int] | Tensor) -> EnsembleState:
        index = torch.as_tensor(rows, dtype=torch.long)
        members = tuple(state.select(index) for state in self.members)
        return EnsembleState(self._lm, members, tuple(self._rows[b] for b in index.tolist()))
