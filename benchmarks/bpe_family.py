"""Trains the committed tokenizer family and measures it on held-out packages.

One run over the training part of the corpus gives all sizes (each is the beginning of the next).
Small vocabularies are stored as `tokenizer.json`; the large ones gzipped, which `BinaryBPE.load`
reads and `bytelm tokenizer unpack` turns into the plain file. Bytes per token are measured on whole
held-out files, by class, beside a text vocabulary (tiktoken's, if it can be had) and raw bytes.

    python benchmarks/bpe_family.py --corpus /tmp/bpe/corpus
"""

import argparse
import hashlib
import json
import resource
import time
from pathlib import Path
from typing import Any

from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.trainer import train_merges
from bytelm.tokenizer.usage import usage_by_class

ROOT = Path(__file__).resolve().parents[1] / "tokenizers"
SIZES = {"4k": 4096, "8k": 8192, "16k": 16384, "32k": 32768, "64k": 65536}
PLAIN = ("4k", "8k", "16k")
LENGTH_CAP = 32


def train(corpus: Path) -> tuple[dict[int, BinaryBPE], dict[str, Any]]:
    files = sorted((corpus / "train").rglob("*.bin"))
    cpu, wall = time.process_time(), time.perf_counter()
    found = train_merges(
        (path.read_bytes() for path in files),
        ids=max(SIZES.values()) - 7,
        max_token_length=LENGTH_CAP,
    )
    facts = {
        "files": len(files),
        "bytes": found.corpus_bytes,
        "pieces_sha256": found.corpus_sha256,
        "manifest_sha256": hashlib.sha256((corpus / "manifest.json").read_bytes()).hexdigest(),
        "lowest_count": int(found.counts[-1]),
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    return BinaryBPE.family(found, list(SIZES.values())), facts


def card(name: str, bpe: BinaryBPE, file: Path, facts: dict[str, Any], usage: Any) -> str:
    rows = "\n".join(
        f"| {kind} | {row['bytes'] / 2**20:.1f} | {row['bytes_per_token']:.2f} |"
        for kind, row in usage["classes"].items()
    )
    lengths = [len(token) for token in bpe.token_bytes if token is not None]
    return f"""# Binary BPE, {bpe.vocab_size} tokens

`{file.name}`, SHA-256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`.
Ids: 7 special tokens (0-6), the 256 bytes (7-262), then the merges in order, so the smaller
members of the family are the beginnings of this one. Byte-level alphabet, no regular expression.
Tokens are at most {LENGTH_CAP} bytes long, on average {sum(lengths) / len(lengths):.2f}.

Load: `bytelm.BinaryBPE.load("tokenizers/binary-{name}")`{unpacking(name)}

## Training

{facts["files"]} executables, {facts["bytes"] / 1e6:.1f} MB, from the packages pinned in
`../corpus.toml` and `../corpus.lock.json`, built by
`python benchmarks/bpe_corpus.py fetch|build`; balanced by capping each class (container and
instruction set) and taking files from every package in turn.
Trained by `python benchmarks/bpe_family.py --corpus CORPUS` in {facts["cpu_s"]} CPU seconds on one
thread for the whole family, peak {facts["peak_mib"]} MiB; pieces of 8 KiB, minimum frequency 2.
Corpus manifest SHA-256 `{facts["manifest_sha256"]}`.
No malware, no packed files, no firmware: none is to be had from package registries.

## Held-out bytes per token

Packages that are not in training on any platform; whole files, no splitting.
{usage["used"]} of {bpe.vocab_size - 7} tokens occur ({usage["used"] / (bpe.vocab_size - 7):.0%}).

| class | MiB | bytes per token |
|---|---|---|
{rows}
| **all** | {usage["bytes"] / 2**20:.1f} | **{usage["bytes_per_token"]:.2f}** |
| all without apk | | {usage["without_apk"]:.2f} |
"""


def unpacking(name: str) -> str:
    if name in PLAIN:
        return ", or `tokenizers.Tokenizer.from_file`."
    return (
        f".\nStored gzipped; `bytelm tokenizer unpack tokenizers/binary-{name}` writes the plain\n"
        "`tokenizer.json` for other libraries."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    corpus = parser.parse_args().corpus
    family, facts = train(corpus)
    print(json.dumps(facts), flush=True)
    result = {"training": facts, "heldout": {}}
    heldout = sorted((corpus / "heldout").rglob("*.bin"))
    for name, size in SIZES.items():
        bpe, folder = family[size], ROOT / f"binary-{name}"
        file = bpe.save(folder, compress=name not in PLAIN)
        usage = usage_by_class(bpe, ((path.parent.name, path.read_bytes()) for path in heldout))
        (folder / "README.md").write_text(card(name, bpe, file, facts, usage))
        result["heldout"][name] = usage
        print(name, file.stat().st_size, usage["bytes_per_token"], flush=True)
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
