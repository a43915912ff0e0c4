"""Regular expressions of pre-tokenizers as trees: what Oniguruma's syntax means, or a refusal.

Pre-tokenizers are written in the syntax of Oniguruma (the engine of Hugging Face `tokenizers`).
Here it is parsed so that what an expression can see of the text that follows is derived from the
expression itself (`piece_automaton.py`). Sets of characters are not computed here: which characters
`[...]` or `\\p{L}` mean is asked of the library, by its source text (`character_sets.py`).

Whatever has no place in a finite automaton that reads forward (backreferences, atomic groups,
lookbehind of more than one character) is refused by name, as is syntax unknown here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from bytelm.errors import BytelmError

ANYTHING = "[\\x{0}-\\x{10FFFF}]"


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of the set `source` (an expression of one character); `negative`: not of it.
    In a lookahead `end` says whether the end of the text will do, in a lookbehind its start."""

    source: str
    negative: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The first alternative that leads to a match."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    least: int
    most: int | None
    greedy: bool = True


@dataclass(frozen=True, slots=True)
class Ahead:
    """A lookahead: `part` matches from here, or does not."""

    part: Node
    positive: bool


@dataclass(frozen=True, slots=True)
class Behind:
    """A lookbehind at one character."""

    part: Characters
    positive: bool


Node = Characters | Sequence | Choice | Repeat | Ahead | Behind
EMPTY = Sequence(())

_QUANTIFIER = re.compile(r"[*+?]|\{(\d*),?(\d*)\}")
_CODE = re.compile(r"\\x\{([0-9A-Fa-f ]+)\}|\\x([0-9A-Fa-f]{1,2})|\\u([0-9A-Fa-f]{4})")
_GROUP = re.compile(r"\?(?:(:)|(=)|(!)|(<=)|(<!)|<([A-Za-z_]\w*)>|([imx]*(?:-[imx]+)?)([:)]))")
_FOLDED = re.compile(r"\(\?i:\\x\{([0-9A-F]+)\}\)")
_LARGEST = 256  # of a counted repetition


def literal(text: str) -> Node:
    """The expression that matches exactly this text."""
    return Sequence(tuple(Characters(_escaped(character)) for character in text))


def parse(source: str) -> Node:
    """The tree of an expression. `BytelmError` that names what is not supported.

    >>> parse(" ?a+")
    ... # doctest: +NORMALIZE_WHITESPACE
    Sequence(parts=(Repeat(part=Characters(source='\\\\x{20}', negative=False, end=False), least=0,
    most=1, greedy=True), Repeat(part=Characters(source='\\\\x{61}', negative=False, end=False),
    least=1, most=None, greedy=True)))
    """
    parser = _Parser(source)
    tree = parser.choice()
    if parser.at < len(source):
        parser.refuse("a `)` without a group")
    return tree


@lru_cache
def _long_foldings() -> frozenset[str]:
    """Texts of several characters that a single character is without case."""
    folded = (chr(code).casefold() for code in range(0x20000))
    return frozenset(text for text in folded if len(text) > 1)


def _escaped(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"


class _Parser:
    """Recursive descent over the source."""

    def __init__(self, source: str):
        self.source = source
        self.at = 0
        self.folds = False  # (?i)
        self.dot_all = False  # (?m), which is what others call (?s)

    def refuse(self, what: str) -> None:
        raise BytelmError(f"{what} at {self.at} of the expression {self.source!r}")

    def choice(self) -> Node:
        folds, dot_all = self.folds, self.dot_all
        options = [self.sequence()]
        while self.peek("|"):
            options.append(self.sequence())
        self.folds, self.dot_all = folds, dot_all
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            part = self.atom()
            parts.append(self.quantified(part))
            self.check_folding(parts)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def check_folding(self, parts: list[Node]) -> None:
        """Refuse letters that without case are one character as well ("ss" and "ß")."""
        codes = []
        for part in parts[-3:]:
            match = _FOLDED.fullmatch(part.source) if isinstance(part, Characters) else None
            codes.append(chr(int(match[1], 16)).casefold() if match else "\0")
        if any("".join(codes).endswith(folded) for folded in _long_foldings()):
            self.refuse(
                f"the letters {''.join(codes)!r} without case, which one character folds to"
            )

    def peek(self, text: str) -> bool:
        """Whether `text` comes next; then it is read."""
        found = self.source.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def quantified(self, part: Node) -> Node:
        while self.at < len(self.source):
            match = _QUANTIFIER.match(self.source, self.at)
            if match is None or match[0] in ("{}", "{,}"):
                return part
            self.at = match.end()
            counted = match[0][0] == "{"
            least, most = _bounds(match)
            if max(least, most or 0) > _LARGEST or (most is not None and least > most):
                self.refuse(f"the repetition {match[0]}")
            if isinstance(part, Ahead | Behind):
                self.refuse("a repeated assertion")
            if self.peek("?"):
                if counted and "," not in match[0]:
                    self.refuse("a counted repetition with `?`")
                part = Repeat(part, least, most, greedy=False)
            elif not counted and self.peek("+"):
                part = self.possessive(part, least, most)
            else:
                part = Repeat(part, least, most)
        return part

    def possessive(self, part: Node, least: int, most: int | None) -> Node:
        """A repetition that gives nothing back. Of single characters it is the greedy one that no
        further character of the set follows."""
        if not isinstance(part, Characters):
            self.refuse("a possessive repetition of more than one character")
        stop = Ahead(part, positive=False)
        if most is None:
            return Sequence((Repeat(part, least, None), stop))
        return Choice((part, stop))  # `?+`

    def atom(self) -> Node:
        character = self.source[self.at]
        if character == "(":
            return self.group()
        if character == "[":
            return self.characters(self.bracket())
        if character == "\\":
            return self.escape()
        self.at += 1
        if character == ".":
            return Characters(ANYTHING) if self.dot_all else Characters("\\n", negative=True)
        if character == "^":
            begins = Behind(Characters("\\n", end=True), positive=True)
            return Sequence((begins, Ahead(Characters(ANYTHING), positive=True)))
        if character == "$":
            return Ahead(Characters("\\n", end=True), positive=True)
        if character in "*+?":
            self.refuse(f"nothing to repeat before `{character}`")
        return self.characters(_escaped(character))

    def characters(self, source: str) -> Characters:
        return Characters(f"(?i:{source})" if self.folds else source)

    def bracket(self) -> str:
        """The source of a class in brackets; classes may hold classes."""
        start = self.at
        self.at += 1
        self.peek("^")
        if self.source.startswith("]", self.at):
            self.refuse("a `]` at the start of a class")
        while self.at < len(self.source):
            character = self.source[self.at]
            if character == "]":
                self.at += 1
                return self.source[start : self.at]
            if character == "[":
                self.bracket()
            else:
                self.at += 2 if character == "\\" else 1
        self.refuse("a class without its `]`")
        raise AssertionError

    def escape(self) -> Node:
        """What begins with a backslash, outside brackets."""
        code = _CODE.match(self.source, self.at)
        if code:
            self.at = code.end()
            if " " in code[0]:
                self.refuse("a list of code points")
            return self.characters(_escaped(chr(int(code[1] or code[2] or code[3], 16))))
        name = self.source[self.at + 1 : self.at + 2]
        self.at += 2
        if name in ("p", "P"):
            end = self.source.find("}", self.at)
            if self.source[self.at : self.at + 1] != "{" or end < 0:
                self.refuse("a property without its braces")
            body = self.source[self.at + 1 : end]
            self.at = end + 1
            negative = (name == "P") != body.startswith("^")
            return Characters(f"\\p{{{body.removeprefix('^')}}}", negative=negative)
        if name and name in "sdwh":
            return Characters(f"\\{name}")
        if name and name in "SDWH":
            return Characters(f"\\{name.lower()}", negative=True)
        if name and name in "nrtfvae":
            return Characters(f"\\{name}")
        if name == "b" or name == "B":
            return _word_boundary(name == "b")
        if name == "A":
            return Behind(Characters(ANYTHING, negative=True, end=True), positive=True)
        if name == "z":
            return Ahead(Characters(ANYTHING, negative=True, end=True), positive=True)
        if not name or name.isalnum():
            self.refuse(f"the escape \\{name}")
        return self.characters(_escaped(name))

    def group(self) -> Node:
        start = self.at
        self.at += 1
        if not self.source.startswith("?", self.at):
            return self.closed(self.choice())
        match = _GROUP.match(self.source, self.at)
        if match is None:
            self.refuse(f"the group {self.source[start : start + 4]!r}...")
        assert match is not None
        self.at = match.end()
        if match[2] or match[3]:
            return Ahead(self.closed(self.choice()), positive=bool(match[2]))
        if match[4] or match[5]:
            part = self.closed(self.choice())
            if not isinstance(part, Characters):
                self.refuse("a lookbehind of more than one character")
            assert isinstance(part, Characters)
            return Behind(part, positive=bool(match[4]))
        if match[8] is None:
            return self.closed(self.choice())
        on, _, off = match[7].partition("-")
        if "x" in on:
            self.refuse("the flag x")
        before = self.folds, self.dot_all
        self.folds = (self.folds or "i" in on) and "i" not in off
        self.dot_all = (self.dot_all or "m" in on) and "m" not in off
        if match[8] == ")":  # to the end of the group it stands in
            return self.choice()
        part = self.closed(self.choice())
        self.folds, self.dot_all = before
        return part

    def closed(self, part: Node) -> Node:
        if not self.peek(")"):
            self.refuse("a group without its `)`")
        return part


def _bounds(match: re.Match[str]) -> tuple[int, int | None]:
    if match[0][0] != "{":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[match[0]]
    least = int(match[1] or 0)
    if "," not in match[0]:
        return least, least
    return least, int(match[2]) if match[2] else None


def _word_boundary(positive: bool) -> Node:
    word = Characters("\\w")
    before, after = Behind(word, positive=True), Behind(word, positive=False)
    follows, ends = Ahead(word, positive=True), Ahead(word, positive=False)
    if positive:
        return Choice((Sequence((before, ends)), Sequence((after, follows))))
    return Choice((Sequence((before, follows)), Sequence((after, ends))))
