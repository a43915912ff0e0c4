"""`Constraint`: what a generated text may be, decided byte by byte; and how several are combined.

A constraint is immutable: where a text stands in it is a `place`, a value of the constraint's own
choosing, so that any number of rows share one constraint. Automata over bytes (`ByteDFA`: regular
expressions, well-formed UTF-8) are constraints; so is any object with the same three methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bytelm.errors import BytelmError
from bytelm.lm.dfa import ByteDFA
from bytelm.lm.regex import regex_dfa
from bytelm.lm.utf8 import open_character, utf8_dfa
from bytelm.vocab import BYTES, OUTCOMES

_FARTHEST = 4096  # bytes; how far an error message looks for a length that would do


@runtime_checkable
class Constraint(Protocol):
    """Which bytes may come next in a text, and whether it may end.

    A text that has to be of even length, and of the letters a and b:

    >>> class EvenPairs:
    ...     def start(self, prompt):
    ...         return 0
    ...     def allowed(self, place, room=None):
    ...         mask = np.zeros(257, dtype=bool)
    ...         mask[[97, 98]] = room is None or room + place >= 2
    ...         mask[256] = place == 0
    ...         return mask
    ...     def advance(self, place, byte):
    ...         return 1 - place
    >>> from bytelm.lm.generate import generate
    >>> from bytelm.lm.ngram import NgramLM
    >>> generate(NgramLM.train([b"abba"]), max_bytes=5, temperature=0, constraint=EvenPairs())
    b'abba'
    """

    def start(self, prompt: bytes) -> Any:
        """The place of the empty text, which will follow `prompt`."""
        ...

    def allowed(self, place: Any, room: int | None = None) -> np.ndarray:
        """(257,) bool: the outcomes that may come next (256 = the end).

        room: how many bytes may still be written; None = any number. Leave out the bytes after
        which the text could not be finished in the room that is left, and a text will never be cut
        off before it is whole.
        """
        ...

    def advance(self, place: Any, byte: int) -> Any:
        """The place after one more byte, which was allowed."""
        ...


@dataclass(frozen=True)
class Both:
    """The texts that two constraints allow; a place is a pair of theirs.

    The outcomes are intersected at each step. That does not look ahead: where two constraints lead
    into a contradiction only later, the text is refused there.
    """

    left: Constraint
    right: Constraint

    def start(self, prompt: bytes) -> tuple[Any, Any]:
        """The places of both."""
        return self.left.start(prompt), self.right.start(prompt)

    def allowed(self, place: tuple[Any, Any], room: int | None = None) -> np.ndarray:
        """(257,) bool: what both allow."""
        return outcomes(self.left, place[0], room) & outcomes(self.right, place[1], room)

    def advance(self, place: tuple[Any, Any], byte: int) -> tuple[Any, Any]:
        """The places of both after `byte`."""
        return self.left.advance(place[0], byte), self.right.advance(place[1], byte)


def outcomes(constraint: Constraint, place: Any, room: int | None) -> np.ndarray:
    """What the constraint allows, checked: (257,) bool. `BytelmError` for another shape."""
    mask = np.asarray(constraint.allowed(place, room), dtype=bool)
    if mask.shape != (OUTCOMES,):
        raise BytelmError(
            f"{type(constraint).__name__}.allowed must give {OUTCOMES} booleans (256 bytes and the "
            f"end), not an array of shape {mask.shape}"
        )
    return mask


def is_complete(constraint: Constraint, place: Any) -> bool:
    """Whether no byte may follow, however much room there is."""
    return not outcomes(constraint, place, None)[:BYTES].any()


def check_room(constraint: Constraint, place: Any, max_bytes: int) -> None:
    """`BytelmError` if the constraint allows no text of at most `max_bytes` bytes from `place`."""
    if outcomes(constraint, place, max_bytes).any() or is_complete(constraint, place):
        return
    lengths = range(max_bytes + 1, max_bytes + _FARTHEST)
    needed = next((n for n in lengths if outcomes(constraint, place, n).any()), None)
    raise BytelmError(
        f"the constraint needs at least {needed or max_bytes + _FARTHEST} bytes and max_bytes is "
        f"{max_bytes}"
    )


def combined(
    prompt: bytes, *, utf8: bool, regex: str | bytes | None, constraint: Constraint | None
) -> Constraint | None:
    """One constraint for what may follow `prompt`; None if nothing is asked of it.

    UTF-8 and a regular expression become one automaton, which looks ahead for both.
    """
    automaton = _automaton(open_character(prompt) if utf8 else b"", utf8, regex)
    if automaton is None or constraint is None:
        return constraint if automaton is None else automaton
    return Both(automaton, constraint)


@lru_cache(maxsize=64)
def _automaton(unfinished: bytes, utf8: bool, regex: str | bytes | None) -> ByteDFA | None:
    """The automaton of what may follow the beginning of a character."""
    text = utf8_dfa().starting_at(utf8_dfa().run(unfinished)) if utf8 else None
    if regex is None:
        return text
    match = regex_dfa(regex)
    return match if text is None else text.intersect(match)
