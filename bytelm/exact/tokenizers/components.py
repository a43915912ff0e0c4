"""Every component of a tokenizer.json, and what is done with it: the one table.

A component is followed exactly, makes no difference, allows mode "all" only (what it does to a text
cannot be followed, but tokens keep their bytes), or is refused (tokens have no bytes of their own).
Nothing is ignored without a row here, and a component without a row is refused by its name.
`docs/exact.md` shows the table (`python -m benchmarks.tokenizer_families --table`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]
EXACT, SAME, STANDS = "exact", "makes no difference", "not applied"
ALL_ONLY, REFUSED = 'mode "all" only', "refused"
BLANK = "\u2581"  # SentencePiece's visible blank


def _any(_: Json) -> bool:
    return True


@dataclass(frozen=True)
class Component:
    """A row: what is done with a component in tokenizers over bytes (GPT-2) and over characters
    (SentencePiece).

    place, kind   where it stands, and its type or the name of an option
    having        the settings meant, in words; the first row of a kind that `applies` decides
    why           in words, for the table and for the message
    """

    place: str
    kind: str
    over_bytes: str
    over_characters: str
    why: str
    having: str = ""
    applies: Callable[[Json], bool] = _any

    @property
    def name(self) -> str:
        return f"{self.place} {self.kind}" + (f" {self.having}" if self.having else "")


def _makes_blanks_visible(part: Json) -> bool:
    return part.get("pattern") == {"String": " "} and part.get("content") == BLANK


def _makes_blanks(part: Json) -> bool:
    return part.get("pattern") == {"String": BLANK} and part.get("content") == " "


def _is_blank(part: Json) -> bool:
    return part.get("pattern") == {"String": " "}


def _set(name: str) -> Callable[[Json], bool]:
    return lambda model: bool(model.get(name))


N, P, M, D, A = "normalizer", "pre_tokenizer", "model", "decoder", "added token"
_REWRITES = "rewrites a text beyond recognition"
_STANDS = "a text is scored as it stands, so exact where it changes nothing"
_DROPS = "drops blanks"
COMPONENTS: tuple[Component, ...] = (
    *(Component(N, kind, STANDS, ALL_ONLY, _STANDS) for kind in ("NFC", "NFD", "NFKC", "NFKD")),
    *(
        Component(N, kind, ALL_ONLY, ALL_ONLY, _REWRITES)
        for kind in (
            "Lowercase", "Strip", "StripAccents", "Nmt", "Precompiled", "BertNormalizer",
        )
    ),
    Component(
        N, "Replace", ALL_ONLY, EXACT, "makes blanks visible", "of blanks by U+2581",
        _makes_blanks_visible,
    ),
    Component(N, "Replace", ALL_ONLY, ALL_ONLY, "rewrites a text", "of anything else"),
    Component(
        N, "Prepend", ALL_ONLY, EXACT, "the dummy blank, conditioned on", "of U+2581",
        lambda part: part.get("prepend") == BLANK,
    ),
    Component(N, "Prepend", ALL_ONLY, ALL_ONLY, "adds to a text", "of anything else"),
    Component(N, "ByteLevel", ALL_ONLY, ALL_ONLY, "cuts are made after bytes became characters"),
    Component(
        P, "ByteLevel", ALL_ONLY, REFUSED, "adds a blank to texts that do not start with one",
        "with add_prefix_space", lambda part: part.get("add_prefix_space", True),
    ),
    Component(P, "ByteLevel", EXACT, REFUSED, "GPT-2's expression"),
    Component(
        P, "Split", EXACT, SAME, "there are no blanks left to cut at", "at blanks", _is_blank
    ),
    Component(
        P, "Split", EXACT, ALL_ONLY,
        "by an automaton of the expression; one that has none, or drops characters, is named",
    ),
    Component(P, "Digits", EXACT, ALL_ONLY, "by the same automaton"),
    Component(P, "Punctuation", EXACT, ALL_ONLY, "by the same automaton"),
    Component(
        P, "Metaspace", ALL_ONLY, EXACT, "makes blanks visible, and the dummy blank",
        "of U+2581", lambda part: part.get("replacement", BLANK) == BLANK,
    ),
    Component(P, "Metaspace", ALL_ONLY, ALL_ONLY, "another mark for blanks", "of anything else"),
    *(
        Component(P, kind, ALL_ONLY, ALL_ONLY, _DROPS)
        for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit")
    ),
    *(
        Component(P, kind, ALL_ONLY, ALL_ONLY, "cuts by a rule of its own")
        for kind in ("UnicodeScripts", "FixedLength")
    ),
    Component(M, "BPE", EXACT, EXACT, "merges over bytes, or over characters with byte_fallback"),
    Component(M, "Unigram", REFUSED, EXACT, "the library's own search"),
    Component(M, "WordPiece", REFUSED, REFUSED, "tokens do not keep every byte of a text"),
    Component(M, "WordLevel", REFUSED, REFUSED, "tokens do not keep every byte of a text"),
    Component(
        "option", "dropout", ALL_ONLY, ALL_ONLY, "encodings are drawn at random",
        applies=_set("dropout"),
    ),
    Component(
        "option", "continuing_subword_prefix", REFUSED, REFUSED,
        "tokens are spelled with marks that are not text",
        applies=_set("continuing_subword_prefix"),
    ),
    Component(
        "option", "end_of_word_suffix", REFUSED, REFUSED,
        "tokens are spelled with marks that are not text", applies=_set("end_of_word_suffix"),
    ),
    Component(
        "option", "ignore_merges", EXACT, ALL_ONLY, "a whole piece that is a token is that token",
        applies=_set("ignore_merges"),
    ),
    Component(
        "option", "fuse_unk", SAME, SAME, "text without a token has no encoding",
        applies=_set("fuse_unk"),
    ),
    Component(
        "option", "byte_fallback", SAME, EXACT, "characters without a piece are written in bytes",
        applies=_set("byte_fallback"),
    ),
    *(
        Component("post_processor", kind, EXACT, EXACT, "what it puts before a text is read off")
        for kind in ("TemplateProcessing", "RobertaProcessing", "BertProcessing", "ByteLevel")
    ),
    Component(D, "ByteLevel", EXACT, REFUSED, "bytes of tokens are those of its alphabet"),
    Component(D, "Metaspace", REFUSED, EXACT, "U+2581 is a blank"),
    Component(
        D, "Replace", REFUSED, EXACT, "U+2581 is a blank", "of U+2581 by blanks", _makes_blanks
    ),
    Component(D, "Replace", REFUSED, REFUSED, "rewrites what tokens spell", "of anything else"),
    Component(D, "ByteFallback", SAME, EXACT, "`<0x0A>` is a byte"),
    Component(D, "Fuse", SAME, SAME, "joins what tokens spell"),
    Component(
        D, "Strip", REFUSED, EXACT, "takes the dummy blank away again", "of one blank in front",
        lambda part: (part.get("content"), part.get("start"), part.get("stop")) == (" ", 1, 0),
    ),
    Component(D, "Strip", REFUSED, REFUSED, "drops what tokens spell", "of anything else"),
    *(
        Component(D, kind, REFUSED, REFUSED, "rewrites what tokens spell")
        for kind in ("BPEDecoder", "WordPiece", "CTC")
    ),
    Component(
        A, "special", EXACT, EXACT, "no bytes: text that spells it is text", applies=_set("special")
    ),
    Component(A, "text", EXACT, EXACT, "found before anything else, in both rounds (`normalized`)"),
    *(
        Component(
            A, kind, ALL_ONLY, ALL_ONLY, "is found by more than its bytes", applies=_set(kind)
        )
        for kind in ("lstrip", "rstrip", "single_word")
    ),
    *(
        Component("other", kind, STANDS, STANDS, "texts are read whole")
        for kind in ("truncation", "padding")
    ),
)  # fmt: skip
OPTIONS = {row.kind: row for row in COMPONENTS if row.place == "option"}


def parts(component: Json | None) -> list[Json]:
    """A component and, of a sequence, its members."""
    if component is None:
        return []
    kinds = ("pretokenizers", "decoders", "normalizers", "processors")
    members = next((component[kind] for kind in kinds if kind in component), None)
    if members is None:
        return [component]
    return [part for member in members for part in parts(member)]


class Limit(NamedTuple):
    """What a component does not allow. action: `ALL_ONLY` or `REFUSED`; why: a clause that names
    the component."""

    action: str
    place: str
    kind: str
    why: str


def limits(definition: Json, *, over_bytes: bool) -> Iterator[Limit]:
    """What the components of a parsed tokenizer.json do not allow."""
    found = [
        (place, part.get("type"), part)
        for place in (N, P, "post_processor", D)
        for part in parts(definition.get(place))
    ]
    model = definition["model"]
    found.append((M, model.get("type", "BPE"), model))
    found += [("option", name, model) for name, row in OPTIONS.items() if row.applies(model)]
    for place, kind, part in found:
        rows = [row for row in COMPONENTS if (row.place, row.kind) == (place, kind)]
        row = next((row for row in rows if row.applies(part)), None)
        if row is None:
            yield Limit(REFUSED, place, str(kind), f"its {place} {kind} is not known")
            continue
        action = row.over_bytes if over_bytes else row.over_characters
        if action in (ALL_ONLY, REFUSED):
            yield Limit(action, place, row.kind, f"its {row.name} ({row.why})")


def table() -> str:
    """The rows in Markdown."""
    lines = ["| component | over bytes | over characters | |", "|---|---|---|---|"]
    for row in COMPONENTS:
        name = f"{row.place} `{row.kind}`" + (f" {row.having}" if row.having else "")
        lines.append(f"| {name} | {row.over_bytes} | {row.over_characters} | {row.why} |")
    return "\n".join(lines)
