"""One text under conversion: its live hypotheses, and what they say about the next byte.

A hypothesis (`Branch`) is an evaluated trunk and the range of tokens that agree with the bytes
since its end, so it stands for all covers of the text which share that trunk. Each byte takes two
steps. `candidates` names the trunks that may start at the end of the text and `open` adds them,
evaluated; `push` follows a byte in every hypothesis and drops those with nothing left. Modes differ
in `candidates` only: in `all`, the tokens that end exactly here, pruned; in the canonical modes,
the trunks of the skeleton.

Three weights are kept apart. `log_lower` is the log mass of the live hypotheses, a lower bound on
the estimand; `log_dropped` bounds what pruning gave up, so P lies in [lower, lower + dropped].
`logprob` is the chain of per-byte conditionals, each normalised over 257 outcomes: a proper
distribution over texts, and what a `ByteLM` reports. The two differ by the mass that specials and
invalid continuations take at each step.

Only evaluating a trunk costs anything, so only new trunks are pruned, and those are not forgotten:
they wait in the `Reserve`. Their weight stays in the mixture, predicting half as the live
hypotheses do, because most of them spell the same text, and half by the frequencies of bytes in
it, so that nothing is ruled out. When a surprising byte takes the live mass down, so that by this
estimate one of them has an `epsilon` of the mass after all, it is evaluated and catches up
(`wake`); where nothing else can follow the byte, they all are (`rescue`). With a tokenizer, the
canonical hypothesis is never lost for long (`restore`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.fallback import EMPTY, Reserve
from bytelm.exact.frontier import Skeleton
from bytelm.exact.hypothesis import Branch, Opened, Pruning
from bytelm.exact.logs import log, logaddexp, logsumexp
from bytelm.exact.prefix_tree import Distribution, Trunk, evaluate
from bytelm.vocab import BYTES, END, OUTCOMES

_RESCUE_BEAM = 64
_BRANCHES = 8  # times the beam: hypotheses that may live at once (they cost no row)
_LOG_OUTCOMES = math.log(OUTCOMES)


class Row:
    """One text. A value; `open_rows` fills in a memo, `push` returns the next row."""

    __slots__ = (
        "pruning", "branches", "starts", "skeleton", "logprob", "log_lower", "log_dropped",
        "reserve", "settled", "opened", "floor",
    )  # fmt: skip

    def __init__(
        self,
        branches: tuple[Branch, ...],
        *,
        starts: tuple[tuple[Trunk, bool], ...] = (),
        pruning: Pruning | None = None,
        skeleton: Skeleton | None = None,
        logprob: float = 0.0,
        log_lower: float = 0.0,
        log_dropped: float = -math.inf,
        reserve: Reserve = EMPTY,
        settled: Trunk | None = None,
        floor: float = -math.inf,
    ):
        self.branches = branches
        self.starts = starts  # trunks that start here whatever the mode says (the base of a text)
        self.pruning = pruning  # None: canonical, nothing is pruned
        self.skeleton = skeleton  # in mode "all" it only foresees trunks
        self.logprob = logprob
        self.log_lower = log_lower
        self.log_dropped = log_dropped
        self.reserve = reserve  # what was pruned before this byte and may come back
        self.settled = settled  # mode "all": the canonical trunk that the beam must not lose
        self.floor = floor  # log probability below which no trunk is opened
        self.opened: Opened | None = None

    def candidates(self) -> tuple[list[tuple[Trunk, bool]], list[Trunk]]:
        """Trunks that start at the end of the text (may the text end there?), and pruned ones."""
        if self.starts:
            return list(self.starts), []
        if self.pruning is None:
            assert self.skeleton is not None
            return list(self.skeleton.here()), []
        ended = self._ended()
        ended.sort(key=lambda trunk: -trunk.logprob)  # type: ignore[operator]
        least = max(self.log_lower + log(self.pruning.epsilon), self.floor)
        kept = [
            trunk
            for trunk in ended[: self.pruning.beam]
            if trunk.logprob > least  # type: ignore[operator]
        ]
        return [(trunk, True) for trunk in kept], ended[len(kept) :]

    def _ended(self) -> list[Trunk]:
        """The trunks that the tokens which end exactly here make."""
        found = []
        for branch in self.branches:
            index = branch.trunk.tree.index
            for token in index.exact(branch.places, branch.depth).tolist():
                child = branch.trunk.child(token)
                if child.logprob is None:
                    child.weigh(branch.distribution)
                if child.logprob != -math.inf:
                    found.append(child)
        return found

    def open(
        self,
        kept: Sequence[tuple[Trunk, bool]],
        distributions: Sequence[Distribution],
        pruned: Sequence[Trunk],
    ) -> None:
        """Take in the candidates, evaluated."""
        branches = [b for b in map(self._going_on, self.branches) if b]
        total = [branch.logmass for branch in branches]
        for (trunk, ends), distribution in zip(kept, distributions, strict=True):
            assert trunk.logprob is not None
            lost = 0.0 if ends else distribution.end
            mass = trunk.logprob + log(distribution.total - lost)
            everything = trunk.tree.index.everything
            branches.append(Branch(trunk, distribution, everything, 0, mass, ends))
            total.append(mass)
        fresh = logsumexp([trunk.logprob for trunk in pruned])  # type: ignore[misc]
        escape = logaddexp(self.reserve.weight, fresh)
        usual = self.reserve.frequencies()
        self.opened = Opened(tuple(branches), logsumexp(total), escape, fresh, tuple(pruned), usual)

    @staticmethod
    def _going_on(branch: Branch) -> Branch | None:
        """A branch without the tokens that have ended: their continuation is another trunk."""
        index = branch.trunk.tree.index
        lo, hi = branch.places
        ended = index.ended(branch.places, branch.depth)
        if ended in (lo, hi):
            return branch if ended == lo else None
        assert branch.trunk.logprob is not None
        logmass = branch.trunk.logprob + log(branch.distribution.mass((ended, hi)))
        return Branch(branch.trunk, branch.distribution, (ended, hi), branch.depth, logmass)

    def logprobs(self) -> NDArray[np.float64]:
        """(257,) normalised log-probabilities of the next byte and the end. A text that has
        probability 0 already has no next byte; by convention all outcomes are then equal."""
        opened = self._need_opened()
        norm = opened.norm
        if norm == -math.inf:
            return np.full(OUTCOMES, -_LOG_OUTCOMES)
        p = np.zeros(OUTCOMES)
        for branch in opened.branches:
            weight = math.exp(branch.trunk.logprob - norm)  # type: ignore[operator]
            if weight == 0.0:
                continue
            distribution = branch.distribution
            p[:BYTES] += weight * branch.trunk.tree.index.split(
                distribution.p, branch.places, branch.depth
            )
            if branch.ends:
                p[END] += weight * distribution.end
        p = opened.all_weights(p)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum())

    def log_end(self) -> float:
        """log P(end | text), as in `logprobs`, without the other 256 outcomes."""
        opened = self._need_opened()
        if opened.norm == -math.inf:
            return -_LOG_OUTCOMES
        ends = [
            branch.trunk.logprob + log(branch.distribution.end)  # type: ignore[operator]
            for branch in opened.branches
            if branch.ends
        ]
        return opened.predict(END, logsumexp(ends)) - opened.norm

    def push(self, byte: int, skeleton: Skeleton | None = None) -> Row:
        """The row after `byte`. `skeleton`: the next skeleton, if it is known already."""
        opened = self._need_opened()
        branches = [b for b in (branch.narrowed(byte) for branch in opened.branches) if b]
        lower = logsumexp([branch.logmass for branch in branches])
        row = self._next(byte, skeleton, lower)
        row.logprob = self.logprob - _LOG_OUTCOMES
        if opened.norm != -math.inf:
            row.logprob = self.logprob + opened.predict(byte, lower) - opened.norm
        row.log_dropped = logaddexp(self.log_dropped, opened.fresh)
        if self.pruning is not None and row.reserve.weight > -math.inf:
            branches += wake(row, branches, lower) if branches else rescue(row)
            branches += restore(row, branches)
            if not branches:
                row.logprob = -math.inf
        row._keep(branches)
        return row

    def _replayed(self, byte: int, floor: float = -math.inf) -> Row:
        """As `push` in a rescue: the hypotheses only."""
        opened = self._need_opened()
        row = Row((), pruning=self.pruning, floor=floor)
        row._keep([b for b in (branch.narrowed(byte) for branch in opened.branches) if b])
        return row

    def _next(self, byte: int, skeleton: Skeleton | None, lower: float) -> Row:
        """The next row without its hypotheses, whose log mass is `lower`."""
        opened = self._need_opened()
        if skeleton is None and self.skeleton is not None:
            skeleton = self.skeleton.push(byte)
        reserve, settled = self.reserve, self.settled
        if self.pruning is not None:
            reserve = reserve.push(byte, opened.pruned, opened.follow(byte, lower))
            if skeleton is not None and skeleton.anchor is not self.skeleton.anchor:  # type: ignore[union-attr]
                settled = skeleton.anchor
        return Row((), pruning=self.pruning, skeleton=skeleton, reserve=reserve, settled=settled)

    def _keep(self, branches: list[Branch]) -> None:
        """Take in the hypotheses after a byte: all of them, as they cost nothing any more, unless
        there are very many."""
        most = len(branches) if self.pruning is None else _BRANCHES * self.pruning.beam
        if len(branches) > most:
            branches = sorted(branches, key=lambda branch: -branch.logmass)
            lost = logsumexp([branch.logmass for branch in branches[most:]])
            self.log_dropped = logaddexp(self.log_dropped, lost)
        self.branches = tuple(branches[:most])
        self.log_lower = logsumexp([branch.logmass for branch in self.branches])

    def _need_opened(self) -> Opened:
        if self.opened is None:
            open_rows([self])
        assert self.opened is not None
        return self.opened


def open_rows(rows: Sequence[Row]) -> None:
    """Open several rows in one LM call."""
    waiting = [row for row in rows if row.opened is None]
    found = [row.candidates() for row in waiting]
    distributions = iter(evaluate([trunk for kept, _ in found for trunk, _ in kept]))
    for row, (kept, pruned) in zip(waiting, found, strict=True):
        row.open(kept, [next(distributions) for _ in kept], pruned)


def rehearse(row: Row, data: bytes, floors: Sequence[float] | None = None) -> list[Trunk]:
    """Trunks that a beam over the known bytes `data` would open but which are not evaluated yet, as
    far as can be told without them. Nothing is evaluated and `row` is left as it is. floors[i]: log
    probability below which none is opened after byte i."""
    missing: list[Trunk] = []
    copy = Row(row.branches, starts=row.starts, pruning=row.pruning, log_lower=row.log_lower)
    copy.opened = row.opened
    for i, byte in enumerate(data):
        if copy.opened is None:
            kept, pruned = copy.candidates()
            known = [(trunk, ends, trunk.current()) for trunk, ends in kept]
            missing += [trunk for trunk, _, distribution in known if distribution is None]
            ready = [(trunk, ends, d) for trunk, ends, d in known if d is not None]
            copy.open([(t, ends) for t, ends, _ in ready], [d for _, _, d in ready], pruned)
        copy = copy._replayed(byte, floors[i] if floors else -math.inf)
        if not copy.branches:
            break
    return missing


def wake(row: Row, live: list[Branch], lower: float) -> list[Branch]:
    """Hypotheses of what weighs enough in the row's reserve to be opened beside the `live` ones of
    log mass `lower`, as far as the beam has room."""
    assert row.pruning is not None
    least = lower + log(row.pruning.epsilon)
    room = row.pruning.beam - sum(branch.logmass > least for branch in live)
    woken = row.reserve.heavy(least, max(room, 0))
    if not woken:
        return []
    branches = _catch_up(row, woken, replace(row.pruning, epsilon=0.0), least)
    row.reserve = row.reserve.without(woken)
    return branches


def restore(row: Row, live: list[Branch]) -> list[Branch]:
    """The hypotheses on the canonical trunk, if no `live` one stands on it, once for each point up
    to which the tokenizer's choice is settled. A text that begins oddly has an unlikely canonical
    beginning; but models know canonical text best, and it may be what predicts the rest."""
    skeleton, settled = row.skeleton, row.settled
    if settled is None or skeleton is None or not skeleton.window or row.pruning is None:
        return []
    row.settled = None
    place = len(row.reserve.places) - len(skeleton.window)
    if place < 0 or any(branch.trunk.stands_on(settled) for branch in live):
        return []
    least = logsumexp([branch.logmass for branch in live]) + log(row.pruning.epsilon)
    row.reserve = row.reserve.unrelated(settled)
    return _catch_up(row, [(place, settled)], replace(row.pruning, epsilon=0.0), least)


def rescue(row: Row) -> list[Branch]:
    """Hypotheses for a row that has none left, from the pruned ends nearest to its end. They follow
    the bytes since with nothing dropped for being improbable. Empty if no token string spells the
    text."""
    assert row.pruning is not None
    wide = Pruning(max(row.pruning.beam, _RESCUE_BEAM), 0.0)
    for i in reversed(range(len(row.reserve.places))):
        woken = [(i, trunk) for trunk in row.reserve.places[i].trunks[:_RESCUE_BEAM]]
        branches = _catch_up(row, woken, wide)
        row.reserve = row.reserve.without(woken)
        if branches:
            return branches
    return []


def _catch_up(
    row: Row, woken: list[tuple[int, Trunk]], pruning: Pruning, least: float = -math.inf
) -> list[Branch]:
    """Open (place, trunk) of the row's reserve where they were pruned and follow the bytes; what
    follows from them is opened if it, too, weighs `least` by the reserve's estimate. Calls are few:
    each evaluates, at all places, what the rehearsal of the bytes finds missing."""
    together: dict[int, list[tuple[Trunk, bool]]] = {}
    for i, trunk in woken:
        together.setdefault(i, []).append((trunk, True))
    floors = [*row.reserve.floors(least), -math.inf]
    replays = [
        (Row((), starts=tuple(starts), pruning=pruning), row.reserve.data[i:], floors[i + 1 :])
        for i, starts in together.items()
    ]
    held: list[tuple[Trunk, Distribution]] = []
    while wanted := [trunk for replay in replays for trunk in rehearse(*replay)]:
        held += zip(wanted, evaluate(wanted), strict=True)
    branches: list[Branch] = []
    for replay, data, ahead in replays:
        for byte, floor in zip(data, ahead, strict=True):
            replay = replay._replayed(byte, floor)
        branches += replay.branches
    return branches
