"""Boundary rules for a decoding step: where the positions of several rows start chunks.

Rules about bytes and positions are decided with numbers of Python; only the learned one computes,
and asks the device once per step.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.boundaries import (
    FixedRule,
    LearnedRule,
    PreviousId,
    PreviousIdRule,
    PreviousVector,
)
from bytelm.nn.boundary_rule import BoundaryRule, NoState
from bytelm.nn.state import State
from bytelm.nn.words import WordsRule, WordState
from bytelm.vocab import BYTES


class RuleSteps(Protocol):
    """A rule in place, for B rows."""

    def cut(
        self,
        x_nD: Tensor,
        rows: Sequence[int],
        index: Tensor | None,
        positions: Sequence[int],
        ids: Sequence[int] | None,
    ) -> tuple[list[bool], Tensor | None]:
        """Whether each of these rows starts a chunk, and p (n,) where it is learned.

        index: `rows` as a tensor, None = all; positions: of each row in its text; ids: the symbols,
        None inside. The first position of a row is not forced here.
        """

    def state(self) -> State:
        """The immutable state of all rows."""


class LearnedSteps:
    """The router. The projection of the previous position is kept, so that both projections of the
    present one are one product."""

    def __init__(self, rule: LearnedRule, state: PreviousVector):
        wq, wk = rule.q_proj_layer.weight.detach(), rule.k_proj_layer.weight.detach()
        exact = torch.promote_types(wq.dtype, torch.float32)
        self._weight = torch.cat((wk, wq)).to(exact).t().contiguous()
        self._x = state.x.clone()
        self._q = self._project(self._x)[:, 1].contiguous()

    def _project(self, x_nD: Tensor) -> Tensor:
        """(n, 2, D): the directions of the two projections, of k and of q."""
        both = torch.mm(x_nD.to(self._weight.dtype), self._weight)
        return F.normalize(both.unflatten(-1, (2, -1)), dim=-1)

    def cut(
        self,
        x_nD: Tensor,
        rows: Sequence[int],
        index: Tensor | None,
        positions: Sequence[int],
        ids: Sequence[int] | None,
    ) -> tuple[list[bool], Tensor | None]:
        k, q = self._project(x_nD).unbind(1)
        if index is None:
            previous = self._q
        elif len(rows) == 1:
            previous = self._q[rows[0] : rows[0] + 1]
        else:
            previous = self._q.index_select(0, index)
        p = ((previous * k).sum(-1).neg_().add_(1).div_(2)).clamp_(0, 1)
        if index is None:
            self._q.copy_(q)
            self._x.copy_(x_nD)
        else:
            self._q.index_copy_(0, index, q)
            self._x.index_copy_(0, index, x_nD.to(self._x.dtype))
        return [value > 0.5 for value in p.tolist()], p

    def state(self) -> PreviousVector:
        return PreviousVector(self._x.clone())


class FixedSteps:
    """A chunk every `stride` positions."""

    def __init__(self, rule: FixedRule, state: NoState):
        self._stride, self._state = rule.options.stride, state

    def cut(
        self,
        x_nD: Tensor,
        rows: Sequence[int],
        index: Tensor | None,
        positions: Sequence[int],
        ids: Sequence[int] | None,
    ) -> tuple[list[bool], Tensor | None]:
        return [(position - 1) % self._stride == 0 for position in positions], None

    def state(self) -> NoState:
        return self._state


class PairSteps:
    """A rule about each id and the one before it; every pair is looked up once."""

    def __init__(self, rule: PreviousIdRule, state: PreviousId):
        self._rule, self._device = rule, state.id.device
        self._before: list[int] = state.id.tolist()
        self._known: dict[tuple[int, int], bool] = {}

    def cut(
        self,
        x_nD: Tensor,
        rows: Sequence[int],
        index: Tensor | None,
        positions: Sequence[int],
        ids: Sequence[int] | None,
    ) -> tuple[list[bool], Tensor | None]:
        assert ids is not None, f"{type(self._rule).__name__} exists at the outermost level only"
        starts = [self._starts(self._before[b], now) for b, now in zip(rows, ids, strict=True)]
        for b, now in zip(rows, ids, strict=True):
            self._before[b] = now
        return starts, None

    def _starts(self, before: int, now: int) -> bool:
        if (before, now) not in self._known:
            pair = torch.tensor([[now]]), torch.tensor([[before]])
            self._known[before, now] = bool(self._rule.starts(*pair, None))
        return self._known[before, now]

    def state(self) -> PreviousId:
        return PreviousId(torch.tensor(self._before, device=self._device))


class WordSteps:
    """The automaton of words, one state per row."""

    def __init__(self, rule: WordsRule, state: WordState):
        self._rule, self._device = rule, state.size.device
        self._before: list[int] = state.before.tolist()
        self._size: list[int] = state.size.tolist()

    def cut(
        self,
        x_nD: Tensor,
        rows: Sequence[int],
        index: Tensor | None,
        positions: Sequence[int],
        ids: Sequence[int] | None,
    ) -> tuple[list[bool], Tensor | None]:
        assert ids is not None, "words exist at the outermost level only"
        rule, limit, found = self._rule, self._rule.options.limit, []
        for b, position, now in zip(rows, positions, ids, strict=True):
            kind = rule.classes[min(now, BYTES)]
            before = self._before[b] if position else 0
            start = position == 0 or rule.starts[before][kind]
            self._size[b] = 1 if start else self._size[b] + 1
            self._before[b] = rule.following[before][kind]
            found.append(start or bool(limit) and (self._size[b] - 1) % limit == 0)
        return found, None

    def state(self) -> WordState:
        before = torch.tensor(self._before, device=self._device)
        return WordState(before, torch.tensor(self._size, device=self._device))


def rule_steps(rule: BoundaryRule, state: Any) -> RuleSteps:
    """The rule in place."""
    if isinstance(rule, LearnedRule):
        return LearnedSteps(rule, state)
    if isinstance(rule, FixedRule):
        return FixedSteps(rule, state)
    if isinstance(rule, PreviousIdRule):
        return PairSteps(rule, state)
    if isinstance(rule, WordsRule):
        return WordSteps(rule, state)
    raise TypeError(f"there are no steps for {type(rule).__name__}: add them here")
