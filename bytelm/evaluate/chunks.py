"""Pictures of where a hierarchical model cuts: coloured terminal text, and a standalone HTML page.

A byte belongs to the chunk whose start is at or before it. Chunks of the outermost stage alternate
between two colours, and marks stand where chunks of the inner stages begin, so nested stages can be
read off one line. Bytes that are not printable text are shown as \\xNN; the text is only decoded
for display, never before the model.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_COLOURS = ("\x1b[30;46m", "\x1b[30;43m")  # black on cyan, black on yellow
_RESET = "\x1b[0m"
_MARKS = "|‖⫴"  # how many stages begin a chunk here
_ASCII_MARKS = "|!#"


@dataclass(frozen=True)
class Glyph:
    """One character of the picture, or one byte that is none: its text and the stages (a count,
    0 to S) that begin a chunk at one of its bytes."""

    text: str
    depth: int
    splits: bool  # a chunk begins inside the character
    size: int  # bytes


def glyphs(data: bytes, stages: Sequence[Sequence[bool]]) -> Iterator[Glyph]:
    """The characters of `data` with the depth of the cut before them."""
    depths = [sum(column) for column in zip(*stages, strict=True)] or [0] * len(data)
    i = 0
    while i < len(data):
        size = _character_size(data, i)
        text = data[i : i + size].decode() if size else f"\\x{data[i]:02x}"
        if size and not text.isprintable() and text not in "\n\t":
            text = "".join(f"\\x{byte:02x}" for byte in data[i : i + size])
        size = max(size, 1)
        yield Glyph(text, max(depths[i : i + size]), any(depths[i + 1 : i + size]), size)
        i += size


def _character_size(data: bytes, start: int) -> int:
    """Bytes of the UTF-8 character at `start`; 0 if there is none."""
    for size in range(1, 5):
        try:
            data[start : start + size].decode()
        except UnicodeDecodeError:
            continue
        return size if start + size <= len(data) else 0
    return 0


def terminal_text(
    data: bytes, stages: Sequence[Sequence[bool]], *, colour: bool = True, encoding: str = "utf-8"
) -> str:
    """The text with its outermost chunks in alternating colours (with bars where `colour` is
    false), and a mark wherever an inner stage begins a chunk too.

    Characters that `encoding` lacks are written as escapes, so a terminal of any kind can show it.

    >>> terminal_text(b"the cat", [[1, 0, 0, 1, 0, 0, 0]], colour=False)
    '|the| cat'
    """
    parts = []
    marks = _MARKS if _encodes(_MARKS, encoding) else _ASCII_MARKS
    chunk = 0
    for glyph in glyphs(data, stages):
        text = glyph.text.encode(encoding, "backslashreplace").decode(encoding)
        if glyph.depth:
            chunk += 1
            mark = marks[min(glyph.depth, len(marks)) - 1]
            if colour:
                text = _COLOURS[chunk % 2] + (mark if glyph.depth > 1 else "") + text
            else:
                text = mark + text
        if colour and "\n" in text:  # a background would run to the edge of the screen
            text = text.replace("\n", f"{_RESET}\n{_COLOURS[chunk % 2]}")
        parts.append(text)
    return "".join(parts) + (_RESET if colour else "")


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


_STYLE = """
body { font: 16px/2 ui-monospace, monospace; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
pre { white-space: pre-wrap; word-break: break-word; font: inherit }
.s { border-radius: 4px; padding: .1em .12em; margin: 0 1px }
.s0 { background: #cfe8ff } .s0.odd { background: #ffe9b8 }
.s1 { box-shadow: 0 3px 0 #d33 } .s2 { box-shadow: 0 3px 0 #d33, 0 6px 0 #393 }
.s3 { box-shadow: 0 3px 0 #d33, 0 6px 0 #393, 0 9px 0 #74c }
.b1 { color: #100 } .b2 { color: #400 } .b3 { color: #700 } .b4 { color: #900 }
.b5 { color: #b00 } .b6 { color: #c00 } .b7 { color: #e00 } .b8 { color: #f00 }
.p2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(28rem, 1fr)); gap: 2rem }
body:has(.p2) { max-width: none }
.x { color: #a33 } table { border-collapse: collapse }
td, th { padding: 0 1em 0 0; text-align: left }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #eee } .x { color: #f99 }
  .b1 { color: #fdd } .b2 { color: #fcc } .b3 { color: #fbb } .b4 { color: #faa }
  .b5 { color: #f99 } .b6 { color: #f88 } .b7 { color: #f77 } .b8 { color: #f55 }
  .s0 { background: #17415f } .s0.odd { background: #5f4711 } }
"""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one model made of a text.

    name    of the model
    stages  per stage, outermost first: whether a chunk starts at each byte
    bits    -log2 P of each byte: characters are the redder the more bits their bytes took (8 and
            more are the reddest), and the pointer shows each byte's; None = not shown
    """

    name: str
    stages: Sequence[Sequence[bool]]
    bits: Sequence[float] | None = None


def html_page(data: bytes, cuts: Sequence[Cut], *, title: str) -> str:
    """A page that needs nothing else: the text as each model cut it, side by side if there are
    several. Outermost chunks alternate in colour; a chunk that begins one of stage 1, 2, ... too is
    underlined once, twice, ..."""
    panels = "".join(_panel(data, cut, named=len(cuts) > 1) for cut in cuts)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        f'<div class="p{min(len(cuts), 2)}">\n{panels}</div>\n</html>\n'
    )


def _panel(data: bytes, cut: Cut, *, named: bool) -> str:
    rows = "".join(
        f"<tr><td>{s}<td>{count:,}<td>{len(data) / max(count, 1):.2f}"
        for s, count in enumerate(sum(stage) for stage in cut.stages)
    )
    heading = f"<h2>{html.escape(cut.name)}</h2>\n" if named else ""
    return (
        f"<section>\n{heading}"
        f"<table><tr><th>stage<th>chunks<th>bytes a chunk{rows}</table>\n"
        f"{_surprise_legend(cut.bits)}"
        f"<pre>{''.join(_html_chunks(data, cut.stages, cut.bits))}</pre>\n</section>\n"
    )


def _surprise_legend(bits: Sequence[float] | None) -> str:
    if bits is None:
        return ""
    return (
        f"<p>{sum(bits) / max(len(bits), 1):.3f} bits per byte. The redder a character, the more "
        "it surprised the model; the pointer shows the bits of each byte.</p>\n"
    )


def _html_chunks(
    data: bytes, stages: Sequence[Sequence[bool]], bits: Sequence[float] | None
) -> Iterator[str]:
    chunk = at = 0
    for glyph in glyphs(data, stages):
        if glyph.depth or not chunk:
            if chunk:
                yield "</span>"
            chunk += 1
            inner = f" s{min(glyph.depth - 1, 3)}" if glyph.depth > 1 else ""
            yield f'<span class="s s0{" odd" if chunk % 2 else ""}{inner}">'
        raw = glyph.text.startswith("\\x") and len(glyph.text) > 1
        text = html.escape(glyph.text)
        text = f'<span class="x">{text}</span>' if raw or glyph.splits else text
        yield text if bits is None else _surprising(text, bits[at : at + glyph.size])
        at += glyph.size
    if chunk:
        yield "</span>"


def _surprising(text: str, bits: Sequence[float]) -> str:
    """A character in one of nine shades, with the bits of its bytes as a title."""
    shade = int(min(8, sum(bits)))
    title = " + ".join(f"{value:.2f}" for value in bits)
    return f'<span class="b{shade}" title="{title} bits">{text}</span>'
