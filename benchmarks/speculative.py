"""Speculative decoding of a converted model: calls of the model, forwards and bytes per CPU second.

    python -m benchmarks.speculative [--bytes 48]

SmolLM2-135M (float32, read in mode canonical; benchmarks/exact_packages.py fetches it) continues
three prompts greedily: Python code and a log, both of which repeat themselves, and prose. Without
a draft, with prompt lookup, and with a byte n-gram model of order 6 trained on data/prose/train.txt
in a second, the tiny model that drafts. The texts must be identical. Seconds are CPU seconds
of one thread, prompt excluded; all ways are measured in turn in one process.
"""

import argparse
import time

import torch

from benchmarks.common import ROOT, store
from benchmarks.exact_packages import package_file
from bytelm.exact import ByteConverter, load_token_model
from bytelm.lm.draft import Drafter, PromptLookup
from bytelm.lm.generation import Generation
from bytelm.lm.model_draft import ModelDrafter
from bytelm.lm.ngram import NgramLM
from bytelm.lm.options import GenerateOptions

PROMPTS = {
    "code": b"""def add(self, other):
    return Vector(self.x + other.x, self.y + other.y, self.z + other.z)

def sub(self, other):
    return Vector(self.x - other.x, self.y - other.y, self.z - other.z)

def mul(self, other):
""",
    "log": b"""2026-03-01 12:00:01 INFO  worker-1 GET /index.html 200 took 13 ms
2026-03-01 12:00:02 INFO  worker-1 GET /about.html 200 took 11 ms
2026-03-01 12:00:03 INFO  worker-1 GET /index.html 200 took 12 ms
2026-03-01 12:00:04""",
    "prose": b"The history of the Roman Empire begins with the founding of the city. In the first "
    b"century,",
}


class Forwards:
    """Counts the forwards of a token model."""

    def __init__(self, lm: ByteConverter):
        self.count, self._extend = 0, lm.lm.extend_trees  # type: ignore[attr-defined]
        lm.lm.extend_trees = self  # type: ignore[attr-defined]

    def __call__(self, requests: list) -> list:
        self.count += 1
        return self._extend(requests)


def write(lm: ByteConverter, forwards: Forwards, prompt: bytes, options: GenerateOptions) -> dict:
    """One text, and what it took after the prompt."""
    run = Generation(lm, rows=1)
    key = run.add(prompt, options)
    run.step()
    forwards.count, began = 0, time.process_time()
    for _ in run:
        pass
    seconds = time.process_time() - began
    data, counts = run.result(key).data, run.draft_counts
    return {
        "text": data.decode(errors="replace"),
        "calls": counts.calls or len(data),
        "forwards": forwards.count,
        "drafted": counts.drafted,
        "accepted": counts.accepted,
        "bytes_per_cpu_s": (len(data) - 1) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", type=int, default=48)
    parser.add_argument("--draft-bytes", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_token_model(package_file("smollm2"), mode="canonical")
    assert isinstance(lm, ByteConverter)
    tiny = NgramLM.train([(ROOT / "data/prose/train.txt").read_bytes()], order=6)
    forwards = Forwards(lm)
    ways: dict[str, Drafter | None] = {
        "none": None,
        "prompt lookup": PromptLookup(),
        "n-gram model": ModelDrafter(tiny, least=0.5),
    }
    results: dict[str, dict] = {}
    table: list[list[object]] = [
        ["text", "draft", "calls", "forwards", "accepted", "bytes/CPU s", "fewer calls", "faster"]
    ]
    write(lm, forwards, b"warm up", GenerateOptions(max_bytes=2, temperature=0))
    for name, prompt in PROMPTS.items():
        results[name] = {}
        for way, draft in ways.items():
            extra = {} if draft is None else {"draft": draft, "draft_bytes": options.draft_bytes}
            wanted = GenerateOptions(max_bytes=options.bytes, temperature=0, **extra)
            row = results[name][way] = write(lm, forwards, prompt, wanted)
            plain = results[name]["none"]
            row["identical"] = row["text"] == plain["text"]
            row["fewer_calls"] = plain["calls"] / row["calls"]
            row["faster"] = row["bytes_per_cpu_s"] / plain["bytes_per_cpu_s"]
            accepted = f"{row['accepted']} of {row['drafted']}"
            ratios = f"{row['fewer_calls']:.2f}x", f"{row['faster']:.2f}x"
            speed = f"{row['bytes_per_cpu_s']:.1f}"
            table.append([name, way, row["calls"], row["forwards"], accepted, speed, *ratios])
            print(table[-1], row["identical"], flush=True)
    store("speculative", {"bytes": options.bytes, "texts": results}, table)


if __name__ == "__main__":
    main()
