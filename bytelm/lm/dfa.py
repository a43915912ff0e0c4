"""`ByteDFA`: a deterministic automaton over bytes, the form our own constraints on text take.

With bytes as symbols a constraint is a 256-column table, and masking one distribution is one row
of it. States from which no accepted string can be reached are removed when a table is built, and
each state knows the length of its shortest accepted continuation: so a constrained generation with
a limit on its length always ends in an accepted text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bytelm.errors import BytelmError
from bytelm.vocab import BYTES, OUTCOMES

DEAD = -1
MAX_STATES = 50_000


@dataclass(frozen=True, eq=False)
class ByteDFA:
    """A `Constraint` whose places are the numbers of states.

    next_SB (S, 256) int32: the state after a byte, or DEAD; accepting (S,) bool; distance (S,): the
    number of bytes to the nearest accepting state; initial: the state of the empty text.
    """

    next_SB: np.ndarray
    accepting: np.ndarray
    distance: np.ndarray
    initial: int = 0

    @classmethod
    def explore(
        cls,
        start: Hashable,
        successors: Callable[[Any], list[Hashable | None]],
        accepts: Callable[[Any], bool],
    ) -> ByteDFA:
        """The automaton of all states reachable from `start`.

        `successors(state)` lists the 256 states after each byte, None for none. `BytelmError` if
        no string is accepted or there are more than 50,000 states.
        """
        number = {start: 0}
        order = [start]
        table = []
        for state in order:  # grows while it is walked
            row = np.full(BYTES, DEAD, dtype=np.int32)
            for byte, target in enumerate(successors(state)):
                if target is None:
                    continue
                if target not in number:
                    number[target] = len(order)
                    order.append(target)
                row[byte] = number[target]
            table.append(row)
            if len(order) > MAX_STATES:
                raise BytelmError(
                    f"the constraint needs more than {MAX_STATES} automaton states: "
                    "lower its repeat counts"
                )
        return cls.trimmed(np.stack(table), np.array([accepts(state) for state in order]))

    @classmethod
    def trimmed(cls, next_SB: np.ndarray, accepting: np.ndarray, *, initial: int = 0) -> Self:
        """The automaton of a table, its transitions to hopeless states cut."""
        distance = _distances(next_SB, accepting)
        if distance[initial] == np.inf:
            raise BytelmError("no text satisfies the constraint")
        hopeful = (next_SB != DEAD) & (distance[next_SB] < np.inf)
        return cls(np.where(hopeful, next_SB, DEAD), accepting, distance, initial)

    def run(self, data: bytes, state: int | None = None) -> int:
        """The state after `data`, or DEAD."""
        state = self.initial if state is None else state
        for byte in data:
            if state == DEAD:
                break
            state = int(self.next_SB[state, byte])
        return state

    def accepts(self, data: bytes) -> bool:
        """Whether the whole of `data` is accepted."""
        state = self.run(data)
        return state != DEAD and bool(self.accepting[state])

    def start(self, prompt: bytes) -> int:
        """The initial state: what is accepted is the text alone, whatever the prompt."""
        return self.initial

    def advance(self, place: int, byte: int) -> int:
        """The state after `byte`."""
        return int(self.next_SB[place, byte])

    def allowed(self, place: int, room: int | None = None) -> np.ndarray:
        """(257,) bool: outcomes after which an accepted text of `room` more bytes (None = of any
        length) is possible. The end (256) is allowed in accepting states."""
        mask = np.zeros(OUTCOMES, dtype=bool)
        targets = self.next_SB[place]
        mask[:BYTES] = targets != DEAD
        if room is not None:
            mask[:BYTES] &= self.distance[targets] < room
        mask[BYTES] = self.accepting[place]
        return mask

    def starting_at(self, state: int) -> ByteDFA:
        """The same automaton with another initial state."""
        return ByteDFA(self.next_SB, self.accepting, self.distance, state)

    def intersect(self, other: ByteDFA) -> ByteDFA:
        """The automaton of the texts both accept."""

        def successors(pair: Any) -> list[Hashable | None]:
            a, b = pair
            both = zip(self.next_SB[a].tolist(), other.next_SB[b].tolist(), strict=True)
            return [None if DEAD in targets else targets for targets in both]

        def accepts(pair: Any) -> bool:
            a, b = pair
            return bool(self.accepting[a] and other.accepting[b])

        return ByteDFA.explore((self.initial, other.initial), successors, accepts)


def _distances(next_SB: np.ndarray, accepting: np.ndarray) -> np.ndarray:
    """Bytes to the nearest accepting state, by breadth-first search against the transitions; inf
    where there is none."""
    # one edge per run of equal targets: neighbouring bytes mostly lead to the same state
    new = np.ones(next_SB.shape, dtype=bool)
    new[:, 1:] = next_SB[:, 1:] != next_SB[:, :-1]
    source, byte = np.nonzero(new & (next_SB != DEAD))
    target = next_SB[source, byte]
    order = np.argsort(target, kind="stable")
    source = source[order]
    first = np.searchsorted(target[order], np.arange(len(next_SB) + 1))
    distance = np.where(accepting, 0.0, np.inf)
    level, length = np.flatnonzero(accepting), 0
    while len(level):
        length += 1
        before = np.concatenate([source[first[state] : first[state + 1]] for state in level])
        level = np.unique(before[np.isinf(distance[before])])
        distance[level] = length
    return distance
