"""Random-span cuts: bits per byte of the byte after a cut, inside a token and at a boundary.

    python -m benchmarks.exact_infill [--bytes 1500] [--out benchmarks/results/exact_infill.json]

The middle of a random span begins wherever the cut falls. For each cut the first byte of the true
middle is predicted from the text before it by three means: encoding the prompt as it is (naive),
token healing, and the canonical byte model. Cuts are counted apart by whether they fall inside a
token of the whole text's encoding or between two. Nothing is executed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.exact_baselines import cut_distributions
from benchmarks.exact_packages import package_file
from benchmarks.exact_texts import ROOT, texts
from bytelm.exact import ByteConverter, load_gguf


def boundaries(lm: ByteConverter, text: bytes) -> set[int]:
    """Positions between two tokens of the text's own encoding."""
    assert lm.encoder is not None
    lengths = [len(lm.index.vocab_bytes[i] or b"") for i in lm.encoder.encode(text)]
    return {0, *np.cumsum(lengths).tolist()}


def measure(lm: ByteConverter, text: bytes) -> dict[str, dict[str, list[float]]]:
    """Bits of each byte, by method and kind of cut."""
    edges = boundaries(lm, text)
    naive, healed = cut_distributions(lm, text)
    exact = lm.score(text).tolist()
    bits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n, byte in enumerate(text):
        kind = "boundary" if n in edges else "inside"
        for name, logp in (("naive", naive[n, byte]), ("healing", healed[n, byte])):
            bits[name][kind].append(-float(logp) / math.log(2))
        bits["canonical"][kind].append(-exact[n] / math.log(2))
    return bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bytes", type=int, default=1500, help="of each kind of text")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with data/")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/exact_infill.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_gguf(package_file("smollm2"), mode="canonical")
    report = {}
    for kind, pieces in texts(arguments.bytes, root=arguments.root).items():
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for piece in pieces:
            for name, by_cut in measure(loaded, piece).items():
                for cut, bits in by_cut.items():
                    found[name][cut] += bits
        report[kind] = {
            name: {
                cut: {"bits": float(np.mean(bits)), "cuts": len(bits)}
                for cut, bits in sorted(by_cut.items())
            }
            for name, by_cut in found.items()
        }
        print(kind, json.dumps(report[kind]), flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        scratch = arguments.out.with_suffix(".tmp")
        scratch.write_text(json.dumps(report, indent=1) + "\n")
        scratch.replace(arguments.out)


if __name__ == "__main__":
    main()
