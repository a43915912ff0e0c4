"""Where a pre-tokenizer cuts a text that is still growing: every way that some continuation makes.

A pre-tokenizer of regular expressions decides a cut with what follows in view: GPT-2 keeps "\\n\\n"
whole at the end of a text but cuts it before a letter. Here it is a finite automaton, built from
the expressions themselves, that reads the text once, class of characters by class of characters,
and guesses at each boundary whether it is a cut. A guess is a claim about the rest of the text (a
thread of the matcher of higher priority never matches, a lookahead holds), carried along and held
against it, so that for each whole text exactly one run is accepted: the library's own cuts. The
runs alive after the beginning of a text are therefore exactly the cuts that its continuations make,
complete by construction; nothing is tried with samples.

Several expressions one after the other (each cuts the pieces of the one before) run in step. What
cannot be had (a construct without a finite forward automaton, one of too many states, a
pre-tokenizer that drops characters) is a `BytelmError`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.character_sets import CharacterClasses
from bytelm.exact.tokenizers.expression import Node
from bytelm.exact.tokenizers.expression_program import (
    Look,
    Program,
    Undecided,
    characters_of,
    compile_expression,
)

STATES = 20_000
Cuts = tuple[int, ...]  # where pieces start, in characters
Runs = Sequence[tuple[int, Cuts]]  # states of an automaton, each with the cuts that led to it
# (is the piece before a match, is the one after) -> whether the boundary between them is a cut
_ISOLATED = {(True, True): True, (True, False): True, (False, True): True}
_CUTS: Mapping[str, Mapping[tuple[bool, bool], bool]] = {
    "isolated": _ISOLATED,
    "removed": _ISOLATED,
    "contiguous": {**_ISOLATED, (True, True): False},
    "mergedwithprevious": {**_ISOLATED, (False, True): False},
    "mergedwithnext": {**_ISOLATED, (True, False): False},
}
BEHAVIORS = tuple(_CUTS)


@dataclass(frozen=True)
class Split:
    """One step of a pre-tokenizer: cut by the matches of an expression.

    behavior: what becomes of a match (`BEHAVIORS`); invert: the same of what lies between matches.
    """

    tree: Node
    behavior: str = "isolated"
    invert: bool = False


class _State(NamedTuple):
    """One level, at a boundary between characters.

    threads    of the match that is under way and must succeed; None between matches
    gap        whether the character before is one that no match holds; None at the text's start
    never      threads of which none may match
    must       sets of threads of which one must match, each
    before     what lookbehinds find
    """

    threads: tuple[int, ...] | None
    gap: bool | None
    never: frozenset[int]
    must: frozenset[frozenset[int]]
    before: tuple[bool, ...]


class _Option(NamedTuple):
    cut: bool
    threads: tuple[int, ...] | None
    never: frozenset[int]
    dropped: bool


class _Level:
    """The automaton of one expression: outcomes of a boundary, given the symbol after it."""

    def __init__(self, split: Split, classes: CharacterClasses):
        self.program: Program = compile_expression(split.tree, classes)
        previous, following = "mergedwithprevious", "mergedwithnext"
        turned = {previous: following, following: previous} if split.invert else {}
        self.cuts = _CUTS[turned.get(split.behavior, split.behavior)]
        self.drops = {not split.invert} if split.behavior == "removed" else set()
        self.plain = split.behavior in ("isolated", "removed")
        nothing: frozenset[int] = frozenset()
        self.begin = _State(None, None, nothing, frozenset(), self.program.seen(None))

    def outcomes(self, state: _State, symbol: int) -> Iterator[tuple[bool, bool, _State]]:
        """(cut before the symbol, drops a character, next state); at the end of the text the next
        state is `state` itself, and there is an outcome exactly if the text may end here."""
        pending: list[dict[int, bool]] = [{}]
        while pending:
            guesses = pending.pop()
            try:
                yield from self._guessed(state, symbol, guesses)
            except Undecided as undecided:
                pending += [{**guesses, undecided.at: value} for value in (True, False)]

    def _guessed(
        self, state: _State, symbol: int, guesses: dict[int, bool]
    ) -> list[tuple[bool, bool, _State]]:
        program = self.program
        options = list(self._options(state, symbol, guesses))
        never, must = set(state.never), set(state.must)
        for at, value in guesses.items():
            look = program.code[at]
            assert isinstance(look, Look)
            if look.positive == value:
                must.add(frozenset({look.body}))
            else:
                never.add(look.body)
        reached, matched = program.closure(never, state.before, symbol, guesses)
        if matched is not None:
            return []
        owed = []
        for threads in must:
            there, matched = program.closure(threads, state.before, symbol, guesses)
            if matched is None:
                owed.append(there)
        if symbol == program.end:
            ends = not owed and any(option.threads is None for option in options)
            return [(False, False, state)] if ends else []
        owed_next = frozenset(frozenset(program.consume(there, symbol)) for there in owed)
        if frozenset() in owed_next:
            return []
        found = []
        for option in options:
            under_way = option.threads
            if under_way is not None:
                under_way = program.consume(under_way, symbol)
                if not under_way:
                    continue
            never_next = frozenset(program.consume({*reached, *option.never}, symbol))
            after = _State(
                under_way, under_way is None, never_next, owed_next, program.seen(symbol)
            )
            found.append((option.cut, option.dropped, after))
        return found

    def _options(
        self, state: _State, symbol: int, guesses: Mapping[int, bool]
    ) -> Iterator[_Option]:
        """What may happen at the boundary, before the symbol is consumed."""
        nothing: frozenset[int] = frozenset()
        if state.threads is None:
            yield from self._starts(state, symbol, guesses, nothing, state.gap)
            return
        reached, matched = self.program.closure(state.threads, state.before, symbol, guesses)
        if matched is not None:  # the match ends here, if none of what was preferred matches
            reached = reached[:matched]
            yield from self._starts(state, symbol, guesses, frozenset(reached), False)
        if reached:
            yield _Option(False, tuple(reached), nothing, False)

    def _starts(
        self,
        state: _State,
        symbol: int,
        guesses: Mapping[int, bool],
        never: frozenset[int],
        gap: bool | None,
    ) -> Iterator[_Option]:
        """A match starts here, or the next character is in none."""
        if symbol == self.program.end:
            yield _Option(False, None, never, False)
            return
        reached, matched = self.program.closure([self.program.start], state.before, symbol, guesses)
        if matched is not None:
            if not self.plain:
                raise BytelmError("an expression that matches nothing, with pieces merged")
            reached = reached[:matched]
        cut_match = gap is not None and self.cuts.get((not gap, True), False)
        cut_gap = gap is not None and self.cuts.get((not gap, False), False)
        if reached:
            yield _Option(cut_match, tuple(reached), never, True in self.drops)
        empty = matched is not None and gap is not None
        yield _Option(cut_gap or empty, None, never | frozenset(reached), False in self.drops)


_Key = tuple[_State, ...]


class PieceAutomaton:
    """The automaton of a pre-tokenizer. `BytelmError` if it has none.

    classes    of characters that its expressions tell apart
    steps      state -> for each class, and last for the end of the text: (cut before it, next
               state) of every outcome that some text has. State 0 is the start of a text.
    can_cut    state -> whether a piece may end here
    can_grow   state -> whether the last piece may go on
    """

    def __init__(self, splits: Sequence[Split]):
        sources = [c.source for split in splits for c in characters_of(split.tree)]
        self.classes = CharacterClasses(sources)
        self._levels = [_Level(split, self.classes) for split in splits]
        keys: dict[_Key, int] = {tuple(level.begin for level in self._levels): 0}
        drops: set[tuple[int, int]] = set()
        steps: list[list[tuple[tuple[bool, int], ...]]] = []
        queue = list(keys)
        for key in queue:
            row: list[tuple[tuple[bool, int], ...]] = []
            for symbol in range(len(self.classes) + 1):
                found: dict[tuple[bool, int], None] = {}
                for cut, dropped, after in self._outcomes(0, key, symbol):
                    if after not in keys:
                        keys[after] = len(keys)
                        queue.append(after)
                        if len(keys) > STATES:
                            raise BytelmError(f"an automaton of more than {STATES:,} states")
                    found[cut, keys[after]] = None
                    if dropped:
                        drops.add((len(steps), keys[after]))
                row.append(tuple(found))
            steps.append(row)
        alive = self._alive(steps)
        if any(before in alive and after in alive for before, after in drops):
            raise BytelmError("it drops characters, so its encodings do not spell the text")
        self.steps = [
            [tuple(step for step in found if step[1] in alive) for found in row] for row in steps
        ]
        self.can_cut = [
            any(cut for f in row for cut, _ in f) or bool(row[-1]) for row in self.steps
        ]
        self.can_grow = [any(not cut for f in row[:-1] for cut, _ in f) for row in self.steps]

    def _outcomes(self, number: int, key: _Key, symbol: int) -> Iterator[tuple[bool, bool, _Key]]:
        """The outcomes of all levels from `number` on."""
        if number == len(self._levels):
            yield False, False, ()
            return
        ends = symbol == len(self.classes)
        for cut, dropped, after in self._levels[number].outcomes(key[0], symbol):
            inner = key[1:]
            if cut and not ends:  # for the levels below, the text ends and another begins
                if not any(True for _ in self._outcomes(number + 1, inner, len(self.classes))):
                    continue
                inner = tuple(level.begin for level in self._levels[number + 1 :])
            for cut_inside, dropped_inside, rest in self._outcomes(number + 1, inner, symbol):
                yield cut or cut_inside, dropped or dropped_inside, (after, *rest)

    @staticmethod
    def _alive(steps: list[list[tuple[tuple[bool, int], ...]]]) -> set[int]:
        """The states from which some text is accepted."""
        parents: dict[int, set[int]] = defaultdict(set)
        for number, row in enumerate(steps):
            for found in row[:-1]:
                for _, after in found:
                    parents[after].add(number)
        stack = [number for number, row in enumerate(steps) if row[-1]]
        alive = set(stack)
        while stack:
            fresh = parents[stack.pop()] - alive
            alive |= fresh
            stack += fresh
        return alive

    def symbols(self, text: str) -> list[int]:
        """The class of each character."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return self.classes.of[codes].tolist()

    def runs(self, symbols: Iterable[int], runs: Runs = ((0, (0,)),), at: int = 0) -> Runs:
        """Every way that some continuation cuts a text, after `symbols` that stand at `at`.

        runs: those before them; by default the start of a text.
        """
        for place, symbol in enumerate(symbols, at):
            runs = [
                (after, (*cuts, place) if cut and place else cuts)
                for state, cuts in runs
                for cut, after in self.steps[state][symbol]
            ]
        return runs

    def cuts(self, symbols: Iterable[int]) -> Cuts:
        """Where the pieces of a whole text start."""
        (found,) = (cuts for state, cuts in self.runs(symbols) if self.steps[state][-1])
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The pieces of a whole text, [start, end) in characters: what the pre-tokenizer does.

        >>> PieceAutomaton([Split(parse(r" ?\\w+|\\s+"))]).spans("two words")
        [(0, 3), (3, 9)]
        """
        cuts = self.cuts(self.symbols(text))
        return list(zip(cuts, (*cuts[1:], len(text)), strict=True)) if text else []
