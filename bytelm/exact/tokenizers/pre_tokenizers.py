"""The `pre_tokenizer` of a byte-level tokenizer.json as the steps of a `PieceAutomaton`.

Each kind of component is either a list of expressions that cut a text, or refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.character_sets import CODE_POINTS, members
from bytelm.exact.tokenizers.expression import Characters, Node, Repeat, literal, parse
from bytelm.exact.tokenizers.expression_program import characters_of
from bytelm.exact.tokenizers.piece_automaton import BEHAVIORS, PieceAutomaton, Split

Json = dict[str, Any]

CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
GPT2 = CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_NUMERIC, _PUNCTUATION = r"\p{N}", r"[!-/:-@\[-`{-~\p{P}]"


def piece_automaton(pre_tokenizer: Json | None) -> PieceAutomaton | None:
    """The automaton of the component; None if it never cuts. `BytelmError` that says why, if it
    cannot be one."""
    splits = _splits(pre_tokenizer)
    return PieceAutomaton(splits) if splits else None


def _splits(component: Json | None) -> list[Split]:
    if component is None:
        return []
    kind = component.get("type")
    if kind == "Sequence":
        found: list[Split] = []
        written = False  # bytes as characters, of which only those of ASCII are what they were
        for member in component["pretokenizers"]:
            splits = _splits(member)
            if written and not all(_of_ascii(split.tree) for split in splits):
                raise BytelmError(
                    f"its pre-tokenizer {member.get('type')} cuts after bytes became characters"
                )
            written |= member.get("type") == "ByteLevel"
            found += splits
        return found
    if kind not in _READERS:
        raise BytelmError(f"its pre-tokenizer {kind} is not supported")
    return _READERS[kind](component)


def _of_ascii(tree: Node) -> bool:
    """Whether the expression matches printable ASCII alone, which the byte alphabet keeps."""
    others = [*range(33), *range(127, CODE_POINTS)]
    return not any(
        part.negative or members(part.source)[others].any() for part in characters_of(tree)
    )


def _byte_level(component: Json) -> list[Split]:
    if component.get("add_prefix_space", True):
        raise BytelmError("it adds a blank to texts that do not start with one")
    return [Split(parse(GPT2))] if component.get("use_regex", True) else []


def _split(component: Json) -> list[Split]:
    pattern = component["pattern"]
    tree = parse(pattern["Regex"]) if "Regex" in pattern else literal(pattern["String"])
    behavior = _behavior(component["behavior"])
    return [Split(tree, behavior, invert=bool(component.get("invert")))]


def _digits(component: Json) -> list[Split]:
    numeric = Characters(_NUMERIC)
    return [Split(numeric if component.get("individual_digits") else Repeat(numeric, 1, None))]


def _punctuation(component: Json) -> list[Split]:
    return [Split(Characters(_PUNCTUATION), _behavior(component.get("behavior", "Isolated")))]


def _behavior(name: str) -> str:
    behavior = name.replace("_", "").lower()
    if behavior not in BEHAVIORS:
        raise BytelmError(f"the behavior {name!r} of its pre-tokenizer is not known")
    return behavior


_READERS: dict[Any, Callable[[Json], list[Split]]] = {
    "ByteLevel": _byte_level,
    "Split": _split,
    "Digits": _digits,
    "Punctuation": _punctuation,
}
