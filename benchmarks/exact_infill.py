"""Random-span infilling without execution: bits of the true middle after a cut, by kind of cut.

    python -m benchmarks.exact_infill [--cuts 60] [--out benchmarks/results/exact_infill]

A span of each text is cut out at random and the true middle is scored after the text before it. All
methods read the same model by the same exact machinery and differ only in what they make of a
prompt that may end inside a token:

naive      the prompt is encoded as it is and its tokens are taken for granted
healing    all but the last token are; the middle is conditioned on starting with that token's bytes
canonical  nothing is: log P(prompt + middle) - log P(prompt)

Cuts are counted apart by whether they fall inside a token of the whole text's encoding or between
two. Nothing is executed.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.exact_packages import package_file
from benchmarks.exact_table import write
from benchmarks.exact_texts import ROOT, texts
from bytelm.exact import ByteConverter, load_token_model
from bytelm.exact.advance import advance
from bytelm.exact.frontier import CanonicalFrontier
from bytelm.exact.text_beam import TextBeam
from bytelm.exact.token_tree import TokenTree

METHODS = ("naive", "healing", "canonical")


def after(lm: ByteConverter, tokens: list[int], data: bytes) -> np.ndarray:
    """(len(data) + 1,) log P of 0, 1, ... bytes of `data` after tokens taken for granted."""
    assert lm.encoder is not None
    base = TokenTree(lm.lm, lm.trie).root.descend(tokens)
    base.logprob = 0.0
    beam = TextBeam(initial=((base, True),), frontier=CanonicalFrontier.after(lm.encoder, base))
    trace = [beam.logprob]
    advance([beam], [data], traces=[trace])
    return np.array(trace)


def bits(lm: ByteConverter, prompt: bytes, middle: bytes) -> dict[str, float]:
    """Bits of `middle` after `prompt`, by method."""
    assert lm.encoder is not None
    tokens = lm.encoder.encode(prompt)
    last = lm.trie.vocab_bytes[tokens[-1]] or b""
    healed = after(lm, tokens[:-1], last + middle)
    exact = float(lm.score(middle, context=[prompt]).sum())
    nats = {
        "naive": after(lm, tokens, middle)[-1],
        "healing": healed[-1] - healed[len(last)],
        "canonical": exact,
    }
    return {name: -float(value) / math.log(2) for name, value in nats.items()}


def edges(lm: ByteConverter, text: bytes) -> set[int]:
    """Positions between two tokens of the text's own encoding."""
    assert lm.encoder is not None
    lengths = [len(lm.trie.vocab_bytes[i] or b"") for i in lm.encoder.encode(text)]
    return {0, *np.cumsum(lengths).tolist()}


def spans(pieces: list[bytes], count: int, seed: int) -> list[tuple[bytes, int, int]]:
    """`count` random (text, start, end): 32 bytes of prompt or more, middles of 8 to 48 bytes."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        text = pieces[rng.integers(len(pieces))]
        length = int(rng.integers(8, 49))
        if len(text) > 32 + length:
            start = int(rng.integers(32, len(text) - length))
            found.append((text, start, start + length))
    return found


def table(report: dict) -> str:
    """Bits per byte of the middle, Markdown."""
    lines = ["| text | cut | cuts | " + " | ".join(METHODS) + " |", "|---" * 6 + "|"]
    for kind, by_cut in report["results"].items():
        for cut, row in sorted(by_cut.items()):
            cells = " | ".join(f"{row[name]:.3f}" for name in METHODS)
            lines.append(f"| {kind} | {cut} | {row['cuts']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cuts", type=int, default=60, help="spans of each kind of text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["english", "code"])
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with data/")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/exact_infill")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_token_model(package_file("smollm2"), mode="canonical")
    found = texts(7000, root=arguments.root)
    report: dict = {"seed": arguments.seed, "results": {}}
    for kind in arguments.kinds:
        totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for text, start, end in spans(found[kind], arguments.cuts, arguments.seed):
            cut = "between tokens" if start in edges(lm, text) else "inside a token"
            totals[cut]["cuts"] += 1
            totals[cut]["bytes"] += end - start
            for name, value in bits(lm, text[:start], text[start:end]).items():
                totals[cut][name] += value
        report["results"][kind] = {
            cut: {"cuts": int(row["cuts"]), **{m: row[m] / row["bytes"] for m in METHODS}}
            for cut, row in totals.items()
        }
        write(arguments.out, report, table(report))
    print(table(report))


if __name__ == "__main__":
    main()
