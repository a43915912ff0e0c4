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

What was pruned is not forgotten, or a byte that only pruned token strings can spell would be
impossible. Their weight (`escape`) stays in the mixture, predicting half as the live hypotheses do,
because most of them spell the same text, and half evenly, so that nothing is ruled out. And where
only they can follow the next byte, they are brought back (`rescue`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytelm.exact.skeleton import Skeleton
from bytelm.exact.trunks import Distribution, Trunk, evaluate, log
from bytelm.exact.vocabulary import Range
from bytelm.vocab import BYTES, END, OUTCOMES

_RESERVE = 64  # how many bytes back pruned hypotheses are remembered
_RESCUE_BEAM = 64
_LOG_OUTCOMES = math.log(OUTCOMES)
_LOG_2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Pruning:
    """How many hypotheses live at once, and the share of the mass below which one is dropped."""

    beam: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Branch:
    """All covers with this trunk whose last token is in the range.

    `depth` bytes of the text lie behind the trunk's end; `logmass` = log P of these covers;
    `ends`: the text may end here (only at depth 0, where the trunk spells the whole text).
    """

    trunk: Trunk
    distribution: Distribution
    places: Range
    depth: int
    logmass: float
    ends: bool = False

    def narrowed(self, byte: int) -> Branch | None:
        """Those of the covers that go on with `byte`; None if there are none."""
        index = self.trunk.tree.index
        lo, hi = index.narrow(self.places, self.depth, byte)
        if lo == hi:
            return None
        assert self.trunk.logprob is not None
        logmass = self.trunk.logprob + log(self.distribution.mass((lo, hi)))
        return Branch(self.trunk, self.distribution, (lo, hi), self.depth + 1, logmass)


@dataclass(frozen=True, slots=True)
class Opened:
    """A row with the trunks that start at its end: what predicts the next byte.

    `logmass` is the log mass of all continuations and the end; `escape` the log weight of what was
    pruned up to here, `fresh` that of what was pruned here, `pruned` the latter's trunks.
    """

    branches: tuple[Branch, ...]
    logmass: float
    escape: float
    fresh: float
    pruned: tuple[Trunk, ...]

    @property
    def norm(self) -> float:
        """log of the weight of everything: what next-byte weights are divided by."""
        return _add(self.logmass, self.escape)

    def predict(self, lower: float) -> float:
        """log weight of an outcome to which the live hypotheses give `lower`."""
        if self.logmass == -math.inf:
            return self.escape - _LOG_OUTCOMES
        return _add(lower, self.escaped(lower))

    def escaped(self, lower: float) -> float:
        """The pruned hypotheses' part of `predict`."""
        if self.logmass == -math.inf:
            return self.escape - _LOG_OUTCOMES
        return self.escape - _LOG_2 + _add(lower - self.logmass, -_LOG_OUTCOMES)


class Row:
    """One text. A value; `open_rows` fills in a memo, `push` returns the next row."""

    __slots__ = (
        "pruning", "branches", "starts", "skeleton", "logprob", "log_lower", "log_dropped",
        "escape", "reserve", "recent", "unplanned", "opened",
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
        escape: float = -math.inf,
        reserve: tuple[tuple[Trunk, ...], ...] = (),
        recent: bytes = b"",
        unplanned: bytes = b"",
    ):
        self.branches = branches
        self.starts = starts  # trunks that start here whatever the mode says (the base of a text)
        self.pruning = pruning  # None: canonical, nothing is pruned
        self.skeleton = skeleton  # in mode "all" it only foresees trunks, and may lag behind
        self.logprob = logprob
        self.log_lower = log_lower
        self.log_dropped = log_dropped
        self.escape = escape  # log weight of what was pruned before this byte and may still live
        self.reserve = reserve  # pruned candidates of the last positions, newest last
        self.recent = recent  # the bytes after each of them
        self.unplanned = unplanned  # bytes that the skeleton of mode "all" has not seen
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
        least = self.log_lower + log(self.pruning.epsilon)
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
        escape = _add(self.escape, fresh)
        self.opened = Opened(tuple(branches), logsumexp(total), escape, fresh, tuple(pruned))

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
        p = self._with_escape(p, opened)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum())

    @staticmethod
    def _with_escape(p: NDArray[np.float64], opened: Opened) -> NDArray[np.float64]:
        """Outcome weights with the pruned hypotheses' part; see `Opened.predict`."""
        share = math.exp(opened.escape - opened.norm)
        if opened.logmass == -math.inf:
            return np.full(OUTCOMES, share / OUTCOMES)
        live = math.exp(opened.logmass - opened.norm)
        return p * (1 + share / 2 / live) + share / 2 / OUTCOMES

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
        return opened.predict(logsumexp(ends)) - opened.norm

    def push(self, byte: int, skeleton: Skeleton | None = None) -> Row:
        """The row after `byte`. `skeleton`: the next skeleton, if it is known already."""
        opened = self._need_opened()
        norm = opened.norm
        branches = [b for b in (branch.narrowed(byte) for branch in opened.branches) if b]
        lower = logsumexp([branch.logmass for branch in branches])
        row = self._next(byte, skeleton)
        row.logprob = self.logprob - _LOG_OUTCOMES
        if norm != -math.inf:
            row.logprob = self.logprob + opened.predict(lower) - norm
            row.escape = opened.escaped(lower)
        row.log_dropped = _add(self.log_dropped, opened.fresh)
        if lower == -math.inf and row.escape > -math.inf and self.pruning is not None:
            branches = rescue(row, self.pruning)
            lower = logsumexp([branch.logmass for branch in branches])
            row.escape = -math.inf
            if lower == -math.inf:
                row.logprob = -math.inf
        row._keep(branches, lower)
        return row

    def _replayed(self, byte: int) -> Row:
        """As `push` in a rescue: the hypotheses only."""
        opened = self._need_opened()
        row = Row((), pruning=self.pruning)
        branches = [b for b in (branch.narrowed(byte) for branch in opened.branches) if b]
        row._keep(branches, logsumexp([branch.logmass for branch in branches]))
        return row

    def _next(self, byte: int, skeleton: Skeleton | None) -> Row:
        """The next row without its hypotheses."""
        pruned = self._need_opened().pruned
        follow = self.skeleton is not None and (self.pruning is None or skeleton is not None)
        if follow and skeleton is None:
            assert self.skeleton is not None
            skeleton = self.skeleton.push(byte)
        return Row(
            (),
            pruning=self.pruning,
            skeleton=skeleton if follow else self.skeleton,
            reserve=(*self.reserve, pruned)[-_RESERVE:] if self.pruning else (),
            recent=(self.recent + bytes([byte]))[-_RESERVE:] if self.pruning else b"",
            unplanned=b"" if follow or self.skeleton is None else self.unplanned + bytes([byte]),
        )

    def _keep(self, branches: list[Branch], lower: float) -> None:
        """Prune the hypotheses after a byte."""
        self.log_lower = lower
        self.branches = tuple(branches)
        if self.pruning is None or not branches:
            return
        branches = sorted(branches, key=lambda branch: -branch.logmass)
        least = lower + log(self.pruning.epsilon)
        kept = [b for b in branches[: self.pruning.beam] if b.logmass > least] or branches[:1]
        dropped = branches[len(kept) :]
        weight = logsumexp([branch.logmass for branch in dropped])
        self._put_in_reserve(dropped)
        self.branches = tuple(kept)
        self.log_dropped = _add(self.log_dropped, weight)
        self.escape = _add(self.escape, weight)
        self.log_lower = logsumexp([branch.logmass for branch in kept])

    def _put_in_reserve(self, dropped: list[Branch]) -> None:
        """Remember the trunks of dropped branches at the position where they start."""
        reserve = list(self.reserve)
        for branch in dropped:
            if branch.depth <= len(reserve):
                reserve[-branch.depth] = (*reserve[-branch.depth], branch.trunk)
        self.reserve = tuple(reserve)

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


def rehearse(row: Row, data: bytes) -> list[Trunk]:
    """Trunks that a beam over the known bytes `data` would open but which are not evaluated yet, as
    far as can be told without them. Nothing is evaluated and `row` is left as it is."""
    missing: list[Trunk] = []
    copy = Row(row.branches, starts=row.starts, pruning=row.pruning, log_lower=row.log_lower)
    copy.opened = row.opened
    for byte in data:
        if copy.opened is None:
            kept, pruned = copy.candidates()
            known = [(trunk, ends, trunk.current()) for trunk, ends in kept]
            missing += [trunk for trunk, _, distribution in known if distribution is None]
            ready = [(trunk, ends, d) for trunk, ends, d in known if d is not None]
            copy.open([(t, ends) for t, ends, _ in ready], [d for _, _, d in ready], pruned)
        copy = copy._replayed(byte)
        if not copy.branches:
            break
    return missing


def rescue(row: Row, pruning: Pruning) -> list[Branch]:
    """Hypotheses for a row that has none left, from the pruned ends nearest to its end.

    They are opened where they were pruned and follow the bytes since, with nothing dropped for
    being improbable. Empty if no token string spells the text.
    """
    wide = Pruning(max(pruning.beam, _RESCUE_BEAM), 0.0)
    for back in range(1, len(row.reserve) + 1):
        trunks = row.reserve[-back]
        if not trunks:
            continue
        starts = tuple((trunk, True) for trunk in trunks[:_RESCUE_BEAM])
        replay = Row((), starts=starts, pruning=wide)
        for byte in row.recent[len(row.recent) - back :]:
            replay = replay._replayed(byte)
        if replay.branches:
            return list(replay.branches)
    return []


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if b > a:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def logsumexp(values: Sequence[float]) -> float:
    """log of a sum of exponentials; -inf for none."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return -math.inf
    return top + math.log(sum(math.exp(value - top) for value in values))
