"""A regular expression compiled for simulation: the ordered threads of a leftmost-first matcher.

The program is the usual one of a Pike machine (Thompson's construction with priorities): its
threads, in order, are what a backtracking engine would try, in that order. Assertions about one
character are decided when the next character is known; a longer lookahead is a fact about the rest
of the text, which the automaton guesses and then holds the text to (`piece_automaton.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.character_sets import CharacterClasses
from bytelm.exact.tokenizers.expression import (
    Behind,
    Characters,
    Choice,
    Node,
    Repeat,
    Sequence,
)

_LONGEST = 4000  # instructions


class Undecided(Exception):
    """A longer lookahead whose truth has not been guessed yet."""

    def __init__(self, at: int):
        self.at = at


@dataclass(frozen=True, slots=True)
class _Take:
    mask: int  # consume a character of these classes


@dataclass(frozen=True, slots=True)
class _Fork:
    targets: tuple[int, ...]  # in order of priority


@dataclass(frozen=True, slots=True)
class _Next:
    mask: int  # assert that the next symbol is one of these (the end of the text has a bit too)


@dataclass(frozen=True, slots=True)
class _Last:
    number: int  # assert that the symbol before is one of `Program.behind[number]`


@dataclass(frozen=True, slots=True)
class Look:
    positive: bool
    body: int  # where the program of the lookahead starts


@dataclass(frozen=True, slots=True)
class _Match:
    pass


@dataclass
class Program:
    """code     instructions; execution starts at `start`
    behind   masks of symbols that lookbehinds ask about (the start of the text has bit 0, classes
             the bits above)
    """

    classes: CharacterClasses
    code: list[_Take | _Fork | _Next | _Last | Look | _Match] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)
    start: int = 0

    @property
    def end(self) -> int:
        """The symbol of the end of the text: the number after the last class."""
        return len(self.classes)

    def closure(
        self,
        threads: Iterable[int],
        before: tuple[bool, ...],
        symbol: int,
        guesses: Mapping[int, bool],
    ) -> tuple[list[int], int | None]:
        """The instructions that consume characters which the threads reach before `symbol`, in
        order, and how many of them come before a match (None if nothing matches here)."""
        reached: list[int] = []
        matched: int | None = None
        seen: set[int] = set()
        stack = list(threads)[::-1]
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            step = self.code[at]
            if isinstance(step, _Take):
                reached.append(at)
            elif isinstance(step, _Fork):
                stack.extend(reversed(step.targets))
            elif isinstance(step, _Next):
                if step.mask >> symbol & 1:
                    stack.append(at + 1)
            elif isinstance(step, _Last):
                if before[step.number]:
                    stack.append(at + 1)
            elif isinstance(step, Look):
                if at not in guesses:
                    raise Undecided(at)
                if guesses[at]:
                    stack.append(at + 1)
            elif matched is None:
                matched = len(reached)
        return reached, matched

    def consume(self, reached: Iterable[int], symbol: int) -> tuple[int, ...]:
        """The threads after a character of the class `symbol`."""
        found = (at + 1 for at in reached if self.code[at].mask >> symbol & 1)  # type: ignore[union-attr]
        return tuple(dict.fromkeys(found))

    def seen(self, symbol: int | None) -> tuple[bool, ...]:
        """What lookbehinds find after a character of this class, or (None) at the start."""
        bit = 0 if symbol is None else symbol + 1
        return tuple(bool(mask >> bit & 1) for mask in self.behind)


def characters_of(tree: Node) -> Iterator[Characters]:
    """The sets of characters that an expression names."""
    if isinstance(tree, Characters):
        yield tree
    elif isinstance(tree, Sequence | Choice):
        for part in tree.parts if isinstance(tree, Sequence) else tree.options:
            yield from characters_of(part)
    else:
        yield from characters_of(tree.part)


def compile_expression(tree: Node, classes: CharacterClasses) -> Program:
    """The program of an expression over these classes. `BytelmError` if it is too large or has
    lookaheads inside lookaheads."""
    program = Program(classes)
    bodies: list[tuple[int, Node]] = []
    _emit(program, tree, bodies)
    program.code.append(_Match())
    main = len(bodies)
    for number, (at, body) in enumerate(bodies):
        if number >= main:
            raise BytelmError("a lookahead inside a lookahead")
        look = program.code[at]
        assert isinstance(look, Look)
        program.code[at] = Look(look.positive, len(program.code))
        _emit(program, body, bodies)
        program.code.append(_Match())
    if len(bodies) > main:
        raise BytelmError("a lookahead inside a lookahead")
    return program


def _emit(program: Program, tree: Node, bodies: list[tuple[int, Node]]) -> None:
    code = program.code
    if len(code) > _LONGEST:
        raise BytelmError(f"an expression of more than {_LONGEST} instructions")
    if isinstance(tree, Characters):
        code.append(_Take(program.classes.mask(tree.source, negative=tree.negative)))
    elif isinstance(tree, Sequence):
        for part in tree.parts:
            _emit(program, part, bodies)
    elif isinstance(tree, Choice):
        _emit_choice(program, tree, bodies)
    elif isinstance(tree, Repeat):
        _emit_repeat(program, tree, bodies)
    elif isinstance(tree, Behind):
        mask = _mask(program, tree.part) << 1 | tree.part.end
        everything = (1 << len(program.classes) + 1) - 1
        program.behind.append(mask if tree.positive else mask ^ everything)
        code.append(_Last(len(program.behind) - 1))
    elif isinstance(tree.part, Characters):
        mask = _mask(program, tree.part) | tree.part.end << program.end
        everything = (1 << len(program.classes) + 1) - 1
        code.append(_Next(mask if tree.positive else mask ^ everything))
    else:
        bodies.append((len(code), tree.part))
        code.append(Look(tree.positive, -1))


def _mask(program: Program, part: Characters) -> int:
    return program.classes.mask(part.source, negative=part.negative)


def _emit_choice(program: Program, tree: Choice, bodies: list[tuple[int, Node]]) -> None:
    code = program.code
    fork = len(code)
    code.append(_Fork(()))
    targets, jumps = [], []
    for option in tree.options:
        targets.append(len(code))
        _emit(program, option, bodies)
        jumps.append(len(code))
        code.append(_Fork(()))
    code[fork] = _Fork(tuple(targets))
    for jump in jumps:
        code[jump] = _Fork((len(code),))


def _emit_repeat(program: Program, tree: Repeat, bodies: list[tuple[int, Node]]) -> None:
    code = program.code
    for _ in range(tree.least):
        _emit(program, tree.part, bodies)

    def fork(stay: int, leave: int) -> _Fork:
        return _Fork((stay, leave) if tree.greedy else (leave, stay))

    if tree.most is None:
        at = len(code)
        code.append(_Fork(()))
        _emit(program, tree.part, bodies)
        code.append(_Fork((at,)))
        code[at] = fork(at + 1, len(code))
        return
    forks = []
    for _ in range(tree.most - tree.least):
        forks.append(len(code))
        code.append(_Fork(()))
        _emit(program, tree.part, bodies)
    for at in forks:
        code[at] = fork(at + 1, len(code))
