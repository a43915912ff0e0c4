"""Regular expressions as automata over bytes.

A pattern is parsed by Python's own `re`, so the syntax and the meaning of classes are the ones
users know, then compiled by Thompson's construction and the subset construction. A `str` pattern
speaks of characters (`.` is one character, encoded as UTF-8), a `bytes` pattern of bytes. So `\\d`
in a `str` is any decimal digit of Unicode and `\\w` any letter; `[0-9]`, the flag `(?a)` or a
`bytes` pattern mean ASCII. The whole text must match, as in `re.fullmatch`, so anchors around the
pattern say nothing new. Flags that change more than classes (`i`, `m`, `L`) and what is not a
regular language (back-references, look-around, anchors inside, possessive repeats) are refused, not
approximated.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from bytelm.errors import BytelmError
from bytelm.lm.dfa import ByteDFA
from bytelm.vocab import BYTES

Range = tuple[int, int]  # inclusive
_REFUSED_FLAGS = (re.IGNORECASE, re.MULTILINE, re.LOCALE)
_CLASSES = int(re.ASCII | re.UNICODE)
_BEGINNINGS = ((op.AT, op.AT_BEGINNING), (op.AT, op.AT_BEGINNING_STRING))
_ENDS = ((op.AT, op.AT_END), (op.AT, op.AT_END_STRING))
_TOP = {str: sys.maxunicode, bytes: BYTES - 1}
MAX_NFA_STATES = 200_000


@lru_cache(maxsize=64)
def regex_dfa(pattern: str | bytes) -> ByteDFA:
    """The automaton of the texts that match `pattern` as a whole. `BytelmError` for a pattern that
    is invalid, not regular or too large.

    >>> regex_dfa(r"[a-z]+@[a-z]+\\.(com|org)").accepts(b"me@example.org")
    True
    >>> regex_dfa(r"^\\d$").accepts("٣".encode()), regex_dfa(r"(?a)\\d").accepts("٣".encode())
    (True, False)
    """
    try:
        return _compiled(pattern)
    except re.error as error:
        raise BytelmError(f"the regular expression {_short(pattern)} is invalid: {error}") from None
    except OverflowError:
        raise _too_large(pattern) from None
    except RecursionError:
        raise BytelmError(
            f"the regular expression {_short(pattern)} is nested too deeply: use fewer groups "
            "inside groups"
        ) from None


def _compiled(pattern: str | bytes) -> ByteDFA:
    with warnings.catch_warnings():  # about syntax that may change its meaning, e.g. [[
        warnings.simplefilter("ignore", FutureWarning)
        tree = _parser.parse(pattern)
    nfa = _Nfa(pattern, tree.state.flags)
    begin, end = nfa.sequence(tree, first=True, last=True)
    start = nfa.closure([begin])
    return ByteDFA.explore(start, nfa.successors, lambda states: end in states)


def _short(pattern: str | bytes) -> str:
    """The pattern for an error message."""
    return repr(pattern) if len(pattern) <= 80 else f"{pattern[:60]!r}... ({len(pattern)} long)"


def _too_large(pattern: str | bytes) -> BytelmError:
    return BytelmError(
        f"the regular expression {_short(pattern)} is too large: lower its repeat counts"
    )


class _Nfa:
    """Thompson's construction. A fragment is a pair (entry state, exit state)."""

    def __init__(self, pattern: str | bytes, flags: int):
        self.pattern = pattern
        self.top = _TOP[type(pattern)]
        self.empty: list[list[int]] = []  # transitions that read nothing
        self.read: list[list[tuple[int, int, int]]] = []  # (low byte, high byte, target)
        self._set(flags)

    def _set(self, flags: int) -> None:
        """From here on these flags of `re` hold; `BytelmError` for one that is not honoured."""
        refused = [flag for flag in _REFUSED_FLAGS if flags & flag]
        if refused:
            raise BytelmError(
                f"the regular expression {_short(self.pattern)} uses the flag {refused[0].name}, "
                "which constraints do not support: write the alternatives out, e.g. [aA]; (?a), "
                "(?s), (?u) and (?x) are honoured"
            )
        self.flags = flags

    def state(self) -> int:
        if len(self.empty) > MAX_NFA_STATES:
            raise _too_large(self.pattern)
        self.empty.append([])
        self.read.append([])
        return len(self.empty) - 1

    def sequence(
        self, items: Iterable, *, first: bool = False, last: bool = False
    ) -> tuple[int, int]:
        """One part after another. first, last: whether the text begins and ends with it, so that
        anchors there say nothing."""
        items = list(items)
        while first and items and items[0] in _BEGINNINGS:
            items = items[1:]
        while last and items and items[-1] in _ENDS:
            items = items[:-1]
        begin = end = self.state()
        for i, (kind, value) in enumerate(items):
            outer = {"first": first and i == 0, "last": last and i == len(items) - 1}
            entry, leave = self.part(kind, value, **outer)
            self.empty[end].append(entry)
            end = leave
        return begin, end

    def part(self, kind: Any, value: Any, *, first: bool, last: bool) -> tuple[int, int]:
        """One node of the parse tree."""
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            return self.symbols(self.ranges(kind, value))
        if kind is op.BRANCH:
            return self.choice(value[1], first=first, last=last)
        if kind is op.SUBPATTERN:
            _, added, removed, items = value
            outside = self.flags
            if added & _CLASSES:  # (?a:...) and (?u:...) exclude each other
                removed |= _CLASSES & ~added
            self._set((outside | added) & ~removed)
            fragment = self.sequence(items, first=first, last=last)
            self.flags = outside
            return fragment
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):  # greed does not change the language
            return self.repeat(*value)
        name = str(kind).lower().replace("_", " ")
        raise BytelmError(
            f"the regular expression {_short(self.pattern)} uses {name!r}, which constraints do "
            "not support: use literals, classes, groups, |, *, +, ? and {m,n}, and anchors at its "
            "two ends only"
        )

    def choice(self, alternatives: Iterable, *, first: bool, last: bool) -> tuple[int, int]:
        begin, end = self.state(), self.state()
        for items in alternatives:
            entry, leave = self.sequence(items, first=first, last=last)
            self.empty[begin].append(entry)
            self.empty[leave].append(end)
        return begin, end

    def repeat(self, least: int, most: int, items: list) -> tuple[int, int]:
        """`items` between `least` and `most` times (most may be unlimited)."""
        begin = end = self.state()
        for _ in range(least):
            entry, leave = self.sequence(items)
            self.empty[end].append(entry)
            end = leave
        if most is op.MAXREPEAT:
            entry, leave = self.sequence(items)
            after = self.state()
            self.empty[end] += [entry, after]
            self.empty[leave] += [entry, after]
            return begin, after
        skips = [end]
        for _ in range(most - least):
            entry, leave = self.sequence(items)
            self.empty[end].append(entry)
            end = leave
            skips.append(end)
        after = self.state()
        for state in skips:
            self.empty[state].append(after)
        return begin, after

    def ranges(self, kind: Any, value: Any) -> list[Range]:
        """The code points (or bytes) a one-symbol node stands for."""
        if kind is op.LITERAL:
            return [(value, value)]
        if kind is op.NOT_LITERAL:
            return _complement([(value, value)], self.top)
        if kind is op.ANY:
            return [(0, self.top)] if self.flags & re.DOTALL else _complement([(10, 10)], self.top)
        found: list[Range] = []
        negated = False
        for inner, argument in value:
            if inner is op.NEGATE:
                negated = True
            elif inner is op.RANGE:
                found.append(argument)
            elif inner is op.CATEGORY:
                found += _category(str(argument), self.top, ascii=bool(self.flags & re.ASCII))
            else:
                found += self.ranges(inner, argument)
        return _complement(found, self.top) if negated else _merge(found)

    def symbols(self, ranges: list[Range]) -> tuple[int, int]:
        """One symbol out of `ranges`."""
        begin, end = self.state(), self.state()
        for low, high in ranges:
            if self.top < BYTES:
                self.read[begin].append((low, high, end))
                continue
            for steps in _utf8_ranges(low, high):
                here = begin
                for i, (a, b) in enumerate(steps):
                    there = end if i == len(steps) - 1 else self.state()
                    self.read[here].append((a, b, there))
                    here = there
        return begin, end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        found = set(states)
        stack = list(found)
        while stack:
            for target in self.empty[stack.pop()]:
                if target not in found:
                    found.add(target)
                    stack.append(target)
        return frozenset(found)

    def successors(self, states: Any) -> list[Hashable | None]:
        """The subset construction's step: the 256 sets of states after each byte."""
        moves = [move for state in states for move in self.read[state]]
        edges = sorted({0, BYTES, *(m[0] for m in moves), *(m[1] + 1 for m in moves)})
        result: list[Hashable | None] = []
        closed: dict[frozenset[int], frozenset[int]] = {}
        for low, high in zip(edges, edges[1:], strict=False):
            targets = frozenset(t for a, b, t in moves if a <= low <= b)
            if targets not in closed:
                closed[targets] = self.closure(targets)
            result += [closed[targets] or None] * (high - low)
        return result


def _merge(ranges: list[Range]) -> list[Range]:
    """The same set as sorted, disjoint ranges."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _complement(ranges: list[Range], top: int) -> list[Range]:
    """Everything in 0..top outside `ranges`."""
    gaps, begin = [], 0
    for low, high in _merge(ranges):
        if begin < low:
            gaps.append((begin, low - 1))
        begin = high + 1
    return gaps if begin > top else [*gaps, (begin, top)]


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


@lru_cache(maxsize=32)
def _category(name: str, top: int, *, ascii: bool) -> list[Range]:
    """The ranges of a class such as \\d, asked of `re` itself."""
    escape = _CATEGORIES[name]
    if top < BYTES:
        found = re.finditer(escape.encode() + b"+", bytes(range(BYTES)))
        return [(match.start(), match.end() - 1) for match in found]
    alphabet = "".join(map(chr, range(sys.maxunicode + 1)))
    matches = re.finditer(escape + "+", alphabet, re.ASCII if ascii else re.UNICODE)
    return [(match.start(), match.end() - 1) for match in matches]


def _utf8_ranges(low: int, high: int) -> Iterator[tuple[Range, ...]]:
    """Byte ranges, one tuple a block, whose products are the UTF-8 encodings of low..high."""
    for first, last in ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF)):
        yield from _same_length(max(low, first), min(high, last))
    yield from _same_length(max(low, 0x10000), min(high, sys.maxunicode))


def _same_length(low: int, high: int) -> Iterator[tuple[Range, ...]]:
    """The blocks of low..high, whose encodings all have the same length."""
    if low > high:
        return
    a, b = chr(low).encode(), chr(high).encode()
    for shift in range(6, 6 * len(a), 6):  # split where the continuation bytes are not full
        mask = (1 << shift) - 1
        if low >> shift != high >> shift:
            if low & mask:
                yield from _same_length(low, low | mask)
                yield from _same_length((low | mask) + 1, high)
                return
            if high & mask != mask:
                yield from _same_length(low, (high & ~mask) - 1)
                yield from _same_length(high & ~mask, high)
                return
    yield tuple(zip(a, b, strict=True))
