"""Which bytes a model deletes, as text in which they are struck out."""

from collections.abc import Sequence
from itertools import groupby

from bytelm.evaluate.chunks import glyphs

_STRUCK, _DIM, _RESET = "\x1b[9;31m", "\x1b[2m", "\x1b[0m"


def struck_text(
    data: bytes, deleted: Sequence[bool], *, colour: bool = True, encoding: str = "utf-8"
) -> str:
    """The text with deleted characters struck out (in brackets with a minus where `colour` is
    false), and characters of which some bytes are deleted dimmed (in angle brackets).

    >>> struck_text(b"vowels", [0, 1, 0, 1, 0, 0], colour=False)
    'v[-o]w[-e]ls'
    """
    marks = {0: ("", ""), 1: (_DIM, _RESET), 2: (_STRUCK, _RESET)}
    if not colour:
        marks = {0: ("", ""), 1: ("<", ">"), 2: ("[-", "]")}
    shown, at = [], 0
    for glyph in glyphs(data, []):
        gone = sum(deleted[at : at + glyph.size])
        at += glyph.size
        text = glyph.text.encode(encoding, "backslashreplace").decode(encoding)
        shown.append((2 if gone == glyph.size else int(gone > 0), text))
    parts = []
    for kind, run in groupby(shown, key=lambda item: item[0]):
        before, after = marks[kind]
        parts.append(before + "".join(text for _, text in run) + after)
    return "".join(parts)
