"""One self-contained HTML page: token lengths, known patterns, a hex view coloured by token."""

from html import escape

from bytelm.tokenizer.bpe import BinaryBPE
from bytelm.tokenizer.patterns import KNOWN, kind_of, known_tokens, length_histogram

_ROW = 32  # bytes per line of the hex view
_STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}
pre{font:12px/1.6 ui-monospace,monospace;overflow-x:auto}table{border-collapse:collapse}
td,th{padding:.1em .8em .1em 0;text-align:left;vertical-align:top}
.bar{background:#4a7;height:.8em;display:inline-block}
.a{background:#dbeafe}.b{background:#fef3c7}.s{background:#d1fae5}.z{background:#e5e7eb}
.k{background:#fecaca}b{font-weight:600}"""


def hex_view(bpe: BinaryBPE, data: bytes) -> str:
    """Offset, hex and ASCII columns; each token a coloured span that names its id and kind."""
    ids, offsets = bpe.encode_with_offsets(data)
    spans = []
    for index, number in enumerate(ids.tolist()):
        text = bpe.token_bytes[number] or b""
        kind = kind_of(text)
        colour = {"string": "s", "wide string": "s", "fill": "z"}.get(kind, "ab"[index % 2])
        spans.append((int(offsets[index]), number, kind, "k" if text in KNOWN else colour))
    lines, at = [], 0
    for row in range(0, len(data), _ROW):
        cells, end = [], min(row + _ROW, len(data))
        while at + 1 < len(spans) and int(offsets[at + 1]) <= row:
            at += 1
        index = at
        while index < len(spans) and spans[index][0] < end:
            first, last = max(spans[index][0], row), min(int(offsets[index + 1]), end)
            title = escape(f"token {spans[index][1]}, {spans[index][2]}", quote=True)
            body = " ".join(f"{byte:02x}" for byte in data[first:last])
            cells.append(f'<span class="{spans[index][3]}" title="{title}">{body}</span>')
            index += 1
        used = end - row
        ascii_ = "".join(chr(b) if 32 <= b < 127 else "." for b in data[row:end])
        pad = "   " * (_ROW - used)
        lines.append(f"{row:08x}  {' '.join(cells)}{pad}  {escape(ascii_)}")
    return "<pre>" + "\n".join(lines) + "</pre>"


def page(bpe: BinaryBPE, title: str, views: list[tuple[str, bytes]]) -> str:
    """The whole page. `views` are (name, bytes) shown token by token."""
    histogram = length_histogram(bpe)
    most = max(histogram.values())
    bars = "\n".join(
        f"<tr><td>{length}</td><td>{count}</td>"
        f'<td><span class="bar" style="width:{300 * count / most:.0f}px"></span></td></tr>'
        for length, count in histogram.items()
    )
    known = "\n".join(
        f"<tr><td>{number}</td><td><code>{(bpe.token_bytes[number] or b'').hex(' ')}</code></td>"
        f"<td>{escape(meaning)}</td></tr>"
        for number, meaning in known_tokens(bpe).items()
    )
    shown = "\n".join(
        f"<h2>{escape(name)}</h2>\n"
        f"<p>{len(data)} bytes, {len(bpe.encode(data))} tokens</p>\n{hex_view(bpe, data)}"
        for name, data in views
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>
<style>{_STYLE}</style><h1>{escape(title)}</h1>
<p>{bpe.vocab_size} ids, {len(bpe.specials)} of them special.</p>
<h2>Tokens by length in bytes</h2><table>{bars}</table>
<h2>Patterns with a fixed meaning</h2><table>{known or "<tr><td>none</td></tr>"}</table>
<p>Colours below: <span class="a">one</span> <span class="b">token</span> after the other,
<span class="s">strings</span>, <span class="z">fill</span>, <span class="k">known patterns</span>;
point at a token for its id.</p>
{shown}</html>
"""
