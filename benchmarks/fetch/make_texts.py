"""Fetch the texts of the architecture comparison beside English: `make_texts.py FOLDER`.

Finnish and Chinese are the help pages of LibreOffice (MPL-2.0), code is the source of networkx
(BSD-3-Clause, without its tests): pinned, hash-checked packages, nothing is installed or run. A
page gives the text of its paragraphs, headings and cells, one per line; a line that occurred before
is left out, in whichever page, so that nothing held out stands in the training text. Part of the
pages was never translated: lines of the English pages are left out, and of the Chinese ones
whatever is not Chinese. Documents are held out by the hash of their names. Writes
LANGUAGE-train.txt and LANGUAGE-heldout.txt.
"""

import hashlib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from fetch import Package

from bytelm.data.sources.archives import open_archive

_VERSION, _FILE = "4:7.4.7-1+deb12u14", "4%3a7.4.7-1+deb12u14"
FINNISH = Package(
    "debian",
    "libreoffice-help-fi",
    _VERSION,
    f"libreoffice-help-fi_{_FILE}_all.deb",
    "47b0bf9820e7eef19de7d56400aae8139de26eca4f3d72f57d6769c751630f26",
    "MPL-2.0",
)
CHINESE = Package(
    "debian",
    "libreoffice-help-zh-cn",
    _VERSION,
    f"libreoffice-help-zh-cn_{_FILE}_all.deb",
    "db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee",
    "MPL-2.0",
)
ENGLISH = Package(
    "debian",
    "libreoffice-help-en-us",
    _VERSION,
    f"libreoffice-help-en-us_{_FILE}_all.deb",
    "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    "MPL-2.0",
)
CODE = Package(
    "pypi",
    "networkx",
    "3.4.2",
    "networkx-3.4.2-py3-none-any.whl",
    "df5d4365b724cf81b8c6a7312509d0c22386097011ad1abe274afd5e9d3bbc5f",
    "BSD-3-Clause",
    "any",
)
HELDOUT_BYTES, SHARE = 128 << 10, 16  # one document in 16 is held out, 128 KB at most

_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "td", "th", "li", "div", "br"}
_HAN = re.compile("[\u3000-\u9fff\uff00-\uffef]")


class PageText(HTMLParser):
    """The lines of a help page, up to its footer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self.hidden = 0
        self.footer = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "head"):
            self.hidden += 1
        self.footer |= tag == "footer"
        if tag in _BLOCKS:
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "head"):
            self.hidden -= 1
        if tag in _BLOCKS:
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if not self.hidden and not self.footer:
            self.lines[-1] += data


def page_lines(page: bytes) -> list[str]:
    """The lines of a page that are not empty, blanks made one.

    >>> page_lines(b"<p>one <b>two</b></p><td>3</td>")
    ['one two', '3']
    """
    parser = PageText()
    parser.feed(page.decode())
    parser.close()
    return [line for raw in parser.lines if (line := " ".join(raw.split()))]


def is_chinese(line: str) -> bool:
    """Whether at least half of a line's characters, blanks aside, are Chinese."""
    visible = line.replace(" ", "")
    return 2 * len(_HAN.findall(visible)) >= len(visible)


def help_pages(package: Package) -> dict[str, list[str]]:
    """Lines of each page, by name."""
    found = {}
    for document in open_archive(package.fetch()):
        name = str(document.meta.get("path", document.meta))
        if name.endswith(".html") and "/text/" in name:
            found[name] = page_lines(document.data)
    return found


def write(folder: Path, language: str, documents: dict[str, bytes]) -> None:
    """Both files of a language."""
    parts: dict[str, list[bytes]] = {"train": [], "heldout": []}
    order = sorted(documents, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    for name in order:
        held = hashlib.sha256(name.encode()).digest()[-1] % SHARE == 0
        parts["heldout" if held else "train"].append(documents[name])
    heldout = b""
    for document in parts["heldout"]:
        if len(heldout) + len(document) <= HELDOUT_BYTES:
            heldout += document
    for part, data in (("train", b"".join(parts["train"])), ("heldout", heldout)):
        (folder / f"{language}-{part}.txt").write_bytes(data)
        print(f"{language}-{part}.txt: {len(data):,} B, {hashlib.sha256(data).hexdigest()[:16]}")


def main() -> None:
    """Fetch and write."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    english = {line for lines in help_pages(ENGLISH).values() for line in lines}
    for language, package in (("finnish", FINNISH), ("chinese", CHINESE)):
        seen = set(english)
        documents = {}
        for name, lines in sorted(help_pages(package).items()):
            kept = [line for line in lines if language != "chinese" or is_chinese(line)]
            new = [line for line in dict.fromkeys(kept) if line not in seen]
            seen.update(new)
            if new:
                documents[name] = ("\n".join(new) + "\n").encode()
        write(folder, language, documents)
    sources = {n: c for n, c in CODE.members().items() if n.endswith(".py") and "/tests/" not in n}
    write(folder, "code", sources)


if __name__ == "__main__":
    main()
