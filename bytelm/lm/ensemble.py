"""`Ensemble`: several `ByteLM`s as one, whatever their vocabularies, since all speak bytes.

Every member reads the same bytes; their distributions over the 257 outcomes are combined by a rule
and normalised exactly, in log space.

  mixture  log sum_k w_k p_k
  bayes    the same with w_k proportional to prior_k P_k(bytes so far): the posterior. So the whole
           is a mixture of the members' distributions over texts, log P = logsumexp_k of the joints
  switch   bayes where the right member may change at any byte (`switching.py`): for texts of mixed
           kinds, on which bayes cannot be better than the best member of the whole text
  product  sum_k a_k log p_k, normalised (a geometric mean for a_k = 1/n)
  proxy    log p_base + a (log p_expert - log p_anti), normalised (proxy tuning, Liu et al. 2024)

A product of next-byte distributions is not the product of the distributions over texts: it is
normalised byte by byte, which is what makes it a `ByteLM`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from bytelm.errors import BytelmError, unknown_name
from bytelm.lm.protocol import (
    BatchState,
    ByteLM,
    Context,
    ReadAhead,
    choose_rows,
    plain_bytes,
    steps_of_rows,
)
from bytelm.lm.running_logprob import (
    RunningLogProb,
    Unscored,
    block_scores,
    check_pieces,
    first_byte_logprobs,
)
from bytelm.lm.scored import one_of
from bytelm.lm.switching import RATE, fixed_share

How = Literal["mixture", "product", "bayes", "switch", "proxy"]
_FLOOR = -100.0  # nats; where proxy's anti-expert gives (almost) nothing, the ratio stays finite


class Ensemble(ByteLM):
    """`how`: see the module. `weights`: mixture, bayes and switch: positive, normalised here,
    default equal (the prior, for the latter two); product: powers, default 1/n; proxy: [a], default
    [1], for the members [base, expert, anti-expert]. `rate`: switch: the probability of a change
    per byte, default 1/512.

    >>> from bytelm.lm.ngram import NgramLM
    >>> lms = [NgramLM.train([b"aaaa"], order=1), NgramLM.train([b"bbbb"], order=1)]
    >>> both = Ensemble(lms, how="bayes")
    >>> [round(w, 2) for w in both.posterior(both.start_batch([b"aaa"]))[0].tolist()]
    [1.0, 0.0]
    """

    def __init__(
        self,
        lms: Sequence[ByteLM],
        how: How = "mixture",
        *,
        weights: Sequence[float] | None = None,
        rate: float | None = None,
    ):
        if how not in get_args(How):
            raise BytelmError(unknown_name("way to combine models", how, get_args(How)))
        if not lms or (how == "proxy" and len(lms) != 3):
            needs = "exactly base, expert and anti-expert" if how == "proxy" else "at least one"
            raise BytelmError(f"a {how} ensemble takes {needs} models, not {len(lms)}")
        if rate is not None and (how != "switch" or not 0 < rate < 1):
            raise BytelmError(
                f"rate is the probability, between 0 and 1, of a change in a switch ensemble; got "
                f"rate={rate} for how={how!r}"
            )
        self.members = tuple(lms)
        self.how = how
        self.rate = RATE if rate is None else rate
        self._weights = torch.tensor(_weights(how, len(lms), weights), dtype=torch.float64)
        limits = {(lm.window, lm.stride) for lm in lms}
        self.context_is_text = all(lm.context_is_text for lm in lms)
        self.window, self.stride = limits.pop() if len(limits) == 1 else (None, None)

    @property
    def specials(self) -> dict[str, int]:
        """The symbols that every member has, with the first member's ids."""
        first, *others = (lm.specials for lm in self.members)
        return {name: i for name, i in first.items() if all(name in other for other in others)}

    @property
    def ends(self) -> set[str] | None:
        """The symbols that end a text of every member."""
        told = [lm.ends for lm in self.members]
        known = [set(ends) for ends in told if ends is not None]
        return set.intersection(*known) if len(known) == len(told) else None

    @property
    def dummy_prefix(self) -> bytes:  # type: ignore[override]
        """That of every member; `BytelmError` if they differ."""
        found = {lm.dummy_prefix for lm in self.members}
        if len(found) > 1:
            raise BytelmError(
                "some members of this ensemble put a dummy blank before a text and others do not, "
                "so no prompt for infilling is right for all: infill with one of them"
            )
        return found.pop()

    def _start(self, prompts: Sequence[bytes], contexts: Sequence[Context]) -> EnsembleState:
        """Bytes of a context are read as text, so that they too move the weights of `bayes` and
        `switch`; special symbols, and what a member reads as a source, are nothing a member gave a
        probability to: they move none."""
        texts = [self._lead(given) for given in contexts]
        leads = [text or b"" for text in texts]
        pinned = [
            given if text is None else () for text, given in zip(texts, contexts, strict=True)
        ]
        states = tuple(lm.start_batch([b""] * len(leads), context=pinned) for lm in self.members)
        prior = tuple(self._weights.log().tolist()) if self.how == "switch" else ()
        rows = tuple(_Row(given, log_w=prior) for given in pinned)
        state = EnsembleState(self, states, rows).feed(leads)
        if any(leads):
            state = state.from_here()
        return state.feed(prompts)

    def _score(self, texts: Sequence[bytes], contexts: Sequence[Context]) -> list[Tensor]:
        if self.how in ("product", "proxy"):
            return super()._score(texts, contexts)
        return [self._mixed(text, given) for text, given in zip(texts, contexts, strict=True)]

    def _mixed(self, data: bytes, context: Context) -> Tensor:
        """`_score` of one text for the rules that weight the members."""
        lead = self._lead(context) or b""
        if lead:
            context = ()
        scores_KN = self._member_scores(lead + data, context)
        log_w = self._weights.log()
        if self.how == "mixture":
            weights_KN = log_w[:, None].expand_as(scores_KN)
            steps_N = _difference(
                (weights_KN + scores_KN).logsumexp(0),
                weights_KN.masked_fill(_ruled_out(scores_KN), -math.inf).logsumexp(0),
            )
        elif self.how == "switch":
            steps_N, _ = fixed_share(log_w, scores_KN, log_w, self.rate)
        else:
            joint_N = (log_w[:, None] + scores_KN.cumsum(1)).logsumexp(0)
            steps_N = _difference(joint_N, torch.cat([joint_N.new_zeros(1), joint_N[:-1]]))
        return steps_N[len(lead) :]

    def _lead(self, context: Context) -> bytes | None:
        """The bytes with which the text begins; None if the context is something else."""
        return plain_bytes(context) if self.context_is_text else None

    def _member_scores(self, data: bytes, context: Context) -> Tensor:
        """(K, len(data) + 1) float64 on the CPU: each member's `score_with_end`."""
        with one_of(len(self.members)):
            scores = [m.score_with_end(data, context=context) for m in self.members]
        return torch.stack([score.cpu().double() for score in scores])

    def posterior(self, state: EnsembleState) -> Tensor:
        """(B, K) float64 weights of the members in `state`: the posterior for bayes, that of the
        next byte's member for switch, the fixed weights otherwise."""
        return state.log_weights().exp()

    def combine(self, states: Sequence[BatchState], log_w_BK: Tensor) -> Tensor:
        """(B, 257) float64 normalised log-probs of what comes next; log_w_BK: of the members, for
        the rules that weight them."""
        logprobs_KBO = torch.stack([state.logprobs().cpu().double() for state in states])
        if self.how in ("mixture", "bayes", "switch"):
            weighted = log_w_BK.T[:, :, None] + logprobs_KBO
            return _normalised(weighted.logsumexp(0))
        impossible_KB = logprobs_KBO.amax(-1).isneginf()  # members that rule the text out
        if self.how == "product":
            used = self._weights != 0  # 0 * -inf is not a number
            powers = self._weights[used][:, None, None]
            score_BO = (powers * logprobs_KBO[used]).sum(0)
        else:
            used = torch.tensor([True, bool(self._weights[0]), False])
            base, expert, anti = logprobs_KBO
            ratio = expert - anti.clamp(min=_FLOOR)
            score_BO = base + self._weights[0] * ratio if self._weights[0] else base
        impossible_B = impossible_KB[used].any(0)
        if bool((score_BO.amax(-1).isneginf() & ~impossible_B).any()):
            raise BytelmError(
                f"the {self.how} ensemble gives every outcome probability zero: its members "
                "contradict each other; use how='mixture' or 'bayes'"
            )
        return _normalised(score_BO)


def _normalised(scores: Tensor) -> Tensor:
    """log_softmax over the last dimension, which leaves rows of nothing but -inf as they are."""
    return _difference(scores, scores.logsumexp(-1, keepdim=True))


def _difference(left: Tensor, right: Tensor) -> Tensor:
    """left - right, and -inf where left is: log of a ratio whose denominator may be 0, too."""
    return torch.where(left.isneginf(), left, left - right)


def _ruled_out(scores_KN: Tensor) -> Tensor:
    """(K, N) bool: whether member k gave an earlier byte probability zero, and so says nothing."""
    zeros = scores_KN.isneginf().cumsum(1)
    return torch.cat([zeros.new_zeros(len(zeros), 1), zeros[:, :-1]], 1) > 0


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


def _last_scores(lm: ByteLM, text: bytes, context: Context, count: int) -> Tensor:
    """(count,) log-probs of the last bytes of a text."""
    return lm.score(text, context=context)[-count:]


@dataclass(frozen=True, slots=True)
class _Row:
    context: Context  # special symbols; plain bytes of a context are part of `data`
    data: bytes = b""
    running: RunningLogProb = RunningLogProb()  # where log P is a sum over bytes: all but bayes
    base: float = 0.0  # bayes: log P of the context's bytes, which logprob leaves out
    log_w: tuple[float, ...] = ()  # switch: log weights of the members for the next byte


class EnsembleState(BatchState):
    """The members' states over the same bytes."""

    _lm: Ensemble

    def __init__(self, lm: Ensemble, members: tuple[BatchState, ...], rows: tuple[_Row, ...]):
        self._lm, self.members, self._rows = lm, members, rows
        self._combined: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def logprob(self) -> Tensor:
        if self._lm.how == "bayes":
            joint = torch.stack([state.logprob.cpu().double() for state in self.members], 1)
            base = torch.tensor([row.base for row in self._rows], dtype=torch.float64)
            return _difference((joint + self._lm._weights.log()).logsumexp(1), base)
        return torch.tensor([row.running.total for row in self._rows], dtype=torch.float64)

    def from_here(self) -> EnsembleState:
        """The same state with log P counted from here."""
        base = self.logprob.tolist() if self._lm.how == "bayes" else [0.0] * self.rows
        rows = [
            replace(row, running=RunningLogProb(), base=lead)
            for row, lead in zip(self._rows, base, strict=True)
        ]
        return EnsembleState(self._lm, self.members, tuple(rows))

    def log_weights(self) -> Tensor:
        """(B, K) log weights of the members for the next byte."""
        log_w = self._lm._weights.log().expand(self.rows, -1)
        if self._lm.how == "switch":
            return torch.tensor([row.log_w for row in self._rows], dtype=torch.float64)
        if self._lm.how != "bayes":
            return log_w
        joint = torch.stack([state.logprob.cpu().double() for state in self.members], 1)
        return _normalised(log_w + joint)

    def logprobs(self) -> Tensor:
        if self._combined is None:
            self._combined = self._lm.combine(self.members, self.log_weights())
        return self._combined

    def feed(self, data: Sequence[bytes]) -> EnsembleState:
        check_pieces(data, self.rows)
        if not any(data):
            return self
        return self._fed(data, tuple(state.feed(data) for state in self.members))

    def _fed(self, data: Sequence[bytes], members: tuple[BatchState, ...]) -> EnsembleState:
        """The state after `data`, given that of the members."""
        advance = self._switched if self._lm.how == "switch" else self._advance
        return EnsembleState(self._lm, members, advance(data))

    def read_ahead(self, data: Sequence[bytes]) -> ReadAhead:
        """Each member reads ahead; the rule combines them byte by byte."""
        check_pieces(data, self.rows)
        return EnsembleReadAhead(self, data)

    def _advance(self, data: Sequence[bytes]) -> tuple[_Row, ...]:
        """The rows after `data`. Only single bytes need the present distribution."""
        single = self._lm.how != "bayes" and any(len(piece) == 1 for piece in data)
        gained = first_byte_logprobs(self.logprobs(), data) if single else [0.0] * self.rows
        rows = []
        for b, (row, piece, gain) in enumerate(zip(self._rows, data, gained, strict=True)):
            text, running = row.data + piece, row.running
            if len(piece) == 1:
                running = running.add(gain)
            elif piece and self._lm.how != "bayes":
                block = Unscored(self._lm, row.context, text, len(row.data), self, b)
                running = running.defer(block)
            rows.append(replace(row, data=text, running=running))
        return tuple(rows)

    def _switched(self, data: Sequence[bytes]) -> tuple[_Row, ...]:
        """The same for `switch`, whose weights need every byte's score by every member."""
        lm, log_prior = self._lm, self._lm._weights.log()
        now_KBO = torch.stack([state.logprobs().cpu().double() for state in self.members])
        possible_KB = ~now_KBO.amax(-1).isneginf()
        rows = []
        for b, (row, piece) in enumerate(zip(self._rows, data, strict=True)):
            if not piece:
                rows.append(row)
                continue
            text = row.data + piece
            if len(piece) == 1:
                steps_KN = now_KBO[:, b, piece[0]][:, None]
            else:
                steps_KN = self._member_steps(b, piece, text, row.context)
            before = torch.tensor(row.log_w, dtype=torch.float64)
            gained, log_w = fixed_share(before, steps_KN, log_prior, lm.rate, possible_KB[:, b])
            running = row.running.add(float(gained.sum()))
            rows.append(replace(row, data=text, running=running, log_w=tuple(log_w.tolist())))
        return tuple(rows)

    def _member_steps(self, b: int, piece: bytes, text: bytes, context: Context) -> Tensor:
        """(K, n) float64: each member's log-probs of the bytes of `piece`, with which row b becomes
        `text`."""
        scores = []
        for lm, state in zip(self._lm.members, self.members, strict=True):
            whole = partial(_last_scores, lm, text, context, len(piece))
            scores.append(block_scores(state, b, piece, len(text), whole).cpu().double())
        return torch.stack(scores)

    def select(self, rows: Sequence[int] | Tensor) -> EnsembleState:
        index = torch.as_tensor(rows, dtype=torch.long)
        members = tuple(state.select(index) for state in self.members)
        return EnsembleState(self._lm, members, tuple(self._rows[b] for b in index.tolist()))

    def join(self, others: Sequence[BatchState]) -> EnsembleState:
        parts = self._with(others)
        states = zip(*(part.members for part in parts), strict=True)
        members = tuple(first.join(more) for first, *more in states)
        return EnsembleState(self._lm, members, tuple(r for part in parts for r in part._rows))


class EnsembleReadAhead(ReadAhead):
    """What the members read in advance, as far as all of them did."""

    def __init__(self, before: EnsembleState, data: Sequence[bytes]):
        members = [state.read_ahead(data) for state in before.members]
        read = [min(map(len, rows)) for rows in zip(*(m.logprobs for m in members), strict=True)]
        self._states = [before]
        for i in range(max(read, default=0)):
            counts = [min(i + 1, n) for n in read]
            step = [piece[i : i + 1] if i < n else b"" for piece, n in zip(data, read, strict=True)]
            states = tuple(member.state(counts) for member in members)
            self._states.append(self._states[-1]._fed(step, states))
        super().__init__(steps_of_rows(self._states, read))

    def state(self, counts: Sequence[int]) -> BatchState:
        return choose_rows(self._states, counts)
