"""Chunk pictures: nothing of the text is lost, cuts are where the model made them."""

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from bytelm.evaluate.chunks import Cut, glyphs, html_page, terminal_text


@st.composite
def cut_texts(draw):
    data = draw(st.binary(max_size=20) | st.text(max_size=10).map(str.encode))
    outer = draw(st.lists(st.booleans(), min_size=len(data), max_size=len(data)))
    inner = [cut and draw(st.booleans()) for cut in outer]
    return data, [outer, inner]


@given(cut_texts())
def test_glyphs_spell_the_data_and_keep_every_cut(case):
    data, stages = case
    shown = b""
    for glyph in glyphs(data, stages):
        if glyph.text.startswith("\\x") and len(glyph.text) >= 4:
            shown += bytes.fromhex(glyph.text.replace("\\x", ""))
        else:
            shown += glyph.text.encode()
    assert shown == data
    cuts = sum(glyph.depth > 0 for glyph in glyphs(data, stages))
    splits = sum(glyph.splits for glyph in glyphs(data, stages))
    assert cuts <= sum(stages[0]) <= cuts + 3 * splits + 3 * cuts


def test_bars_mark_the_stages_without_colour():
    data = b"a cat sat"
    outer = [i in (0, 2, 6) for i in range(9)]
    inner = [i in (0, 6) for i in range(9)]
    assert terminal_text(data, [outer, inner], colour=False) == "‖a |cat ‖sat"
    ascii_only = terminal_text(data, [outer, inner], colour=False, encoding="ascii")
    assert ascii_only == "!a |cat !sat"


def test_a_terminal_without_unicode_gets_escapes():
    data = "é→x\x1b[2J\xff".encode()
    stages = [[True] + [False] * (len(data) - 1)]
    text = terminal_text(data, stages, colour=False, encoding="ascii")
    assert text.isascii() and "\x1b" not in text


def test_colours_alternate_and_are_reset():
    text = terminal_text(b"abc", [[True, False, True]], colour=True)
    codes = re.findall(r"\x1b\[([0-9;]*)m", text)
    assert codes[0] != codes[1] and codes[-1] == "0"
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == "abc"


@given(cut_texts())
def test_the_page_shows_the_text_and_as_many_chunks(case):
    data, stages = case
    page = html_page(data, [Cut(name="one", stages=stages)], title="<b>&")
    assert "<b>" not in page and "src=" not in page and "href=" not in page
    body = page.split("<pre>")[1].split("</pre>")[0]
    plain = html.unescape(re.sub(r"<[^>]*>", "", body))
    assert plain == "".join(glyph.text for glyph in glyphs(data, stages))
    assert body.count("<span") == body.count("</span>")


def test_several_models_stand_side_by_side_with_their_names():
    cuts = [Cut(name="a<b", stages=[[True, False]]), Cut(name="other", stages=[[True, True]])]
    page = html_page(b"xy", cuts, title="t")
    first, second = page.split("<section>")[1:]
    assert "<h2>a&lt;b</h2>" in first and "<td>1<td>2.00" in first
    assert "<h2>other</h2>" in second and "<td>2<td>1.00" in second
    assert "<h2>" not in html_page(b"xy", cuts[:1], title="t")
