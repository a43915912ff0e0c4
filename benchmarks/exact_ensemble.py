"""Two models with different vocabularies as one: SmolLM2 and a byte model trained here.

    python -m benchmarks.exact_ensemble [--seconds 240] [--run DIR] [--bytes 4000]

The byte model is an H-Net trained on the bundled prose and on hex dumps of the bundled executables
(recipe hnet-tiny, `--seconds` of CPU time); SmolLM2-135M is converted in mode canonical. Texts are
held-out prose, hex dumps of a held-out package, and both in turns of about 500 bytes. Each text is
read as one document by every model and by their ensembles: bayes (the posterior over models) and
switch (the same where the right model may change at any byte).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path

import torch

from benchmarks.common import store
from benchmarks.exact_packages import package_file
from benchmarks.exact_texts import ROOT, split
from bytelm.exact import load_token_model
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.protocol import ByteLM
from bytelm.loading import load

EXECUTABLES = ROOT / "data" / "executables"
SKIPPED = 4096  # bytes of headers and tables before the held-out code that is dumped


def hex_dump(data: bytes) -> bytes:
    """32 bytes per line, as `xxd -p -c 32` writes them."""
    return b"".join(data[i : i + 32].hex().encode() + b"\n" for i in range(0, len(data), 32))


def train(run: Path, seconds: float) -> None:
    """The byte model, unless it is there already."""
    if (run / "model.safetensors").exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        dump = Path(scratch) / "hex.txt"
        files = sorted(EXECUTABLES.glob("[!h]*/*.*"))
        dump.write_bytes(b"".join(hex_dump(path.read_bytes()) for path in files))
        overrides = [
            f'data.train=["data/prose/train.txt", "{dump}"]',
            f"train.max_minutes={seconds / 60}",
            "train.clock=cpu",
            "train.threads=1",
        ]
        command = [sys.executable, "train.py", "hnet-tiny", "--run", str(run), *overrides]
        subprocess.run(command, check=True, cwd=ROOT)


def documents(size: int) -> dict[str, bytes]:
    """The texts: prose, hex, and both in turns."""
    prose = (ROOT / "data/prose/heldout.txt").read_bytes()[: 2 * size]
    code = (EXECUTABLES / "heldout-markupsafe/manylinux2014_x86_64.so").read_bytes()[SKIPPED:]
    found = {"prose": prose[:size], "hex": hex_dump(code)[:size]}
    turns = zip(split(found["prose"], 500), split(found["hex"], 500), strict=False)
    found["mixed"] = b"\n".join(chain.from_iterable(turns))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=240, help="CPU time of the training")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/exact-ensemble")
    parser.add_argument("--bytes", type=int, default=4000, help="of prose and of hex")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments.run, arguments.seconds)
    members: dict[str, ByteLM] = {
        "SmolLM2-135M": load_token_model(package_file("smollm2"), mode="canonical"),
        "H-Net trained here": load(arguments.run),
    }
    remembered = [_Remembering(lm) for lm in members.values()]
    found: dict[str, dict[str, float]] = {}
    for kind, text in documents(arguments.bytes).items():
        models: dict[str, ByteLM] = dict(zip(members, remembered, strict=True))
        models |= {how: Ensemble(remembered, how) for how in ("bayes", "switch")}  # type: ignore[arg-type]
        found[kind] = {name: lm.bits_per_byte(text) for name, lm in models.items()}
        found[kind]["bytes"] = len(text)
        print(kind, found[kind], flush=True)
    table: list[list[object]] = [["bits per byte of", *found]]
    for name in (*members, "bayes", "switch"):
        table.append([name, *(f"{row[name]:.4f}" for row in found.values())])
    store("exact_ensemble", {"results": found, "training_cpu_s": arguments.seconds}, table)


class _Remembering(ByteLM):
    """A model that scores each text once, however many ensembles ask."""

    def __init__(self, lm: ByteLM):
        self._lm, self._known = lm, {}

    def _start(self, prompts, contexts):
        return self._lm.start_batch(prompts, context=contexts)

    def _score(self, texts, contexts):
        for key in zip(texts, contexts, strict=True):
            if key not in self._known:
                self._known[key] = self._lm.score_with_end(key[0], context=key[1])
        return [self._known[key] for key in zip(texts, contexts, strict=True)]


if __name__ == "__main__":
    main()
