"""Cached, batched generation against running the whole context again for every byte.

    python benchmarks/generation.py [--context 1024] [--bytes 64] [--batch 8] [--out FILE]

Both sides write greedily from the same random prompts with the same random weights, in one
process and one thread, with the same batch; the texts must be identical. Process CPU seconds are
reported, because wall time on shared cores is noise. The reading of the prompt is part of both
sides' time. Random weights make no difference to the work done, except that an untrained router
cuts often, which is the worst case for the hierarchical model.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bytelm.arch.base import ByteModel
from bytelm.arch.hnet import HNet
from bytelm.arch.transformer import Transformer
from bytelm.data.batch import Batch
from bytelm.lm.generate import generate_batch
from bytelm.lm.native import NativeLM
from bytelm.vocab import END, ByteVocab

MODELS: dict[str, tuple[type[ByteModel], dict]] = {
    "transformer": (Transformer, {"layers": 6, "d_model": 256, "heads": 4}),
    "hnet": (
        HNet,
        {
            "layout": ["m3", ["T4"], "m3"],
            "d_model": [192, 256],
            "d_intermediate": [0, 704],
            "num_heads": [0, 4],
            "target": [5],
        },
    ),
}


@torch.no_grad()
def rerun(model: ByteModel, prompts: list[bytes], count: int) -> list[bytes]:
    """The plain way: a forward over BOS and everything written so far, one byte at a time."""
    written = [b""] * len(prompts)
    for _ in range(count):
        rows = [[model.vocab.bos, *p, *w] for p, w in zip(prompts, written, strict=True)]
        logits = model(Batch(ids=torch.tensor(rows))).logits[:, -1, :256]
        written = [w + bytes([b]) for w, b in zip(written, logits.argmax(-1).tolist(), strict=True)]
    return written


def cached(lm: NativeLM, prompts: list[bytes], count: int) -> list[bytes]:
    """Ours."""
    results = generate_batch(lm, prompts, max_bytes=count, temperature=0)
    return [result.data for result in results]


def timed(work: Callable[[], list[bytes]]) -> tuple[list[bytes], float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def build(name: str) -> ByteModel:
    """The model with a sharpened head: with the usual one all logits are nearly equal, and greedy
    choices would hang on rounding. It never ends a text, so that both sides write equally much."""
    torch.manual_seed(0)
    kind, options = MODELS[name]
    model = kind(kind.Config(**options), ByteVocab()).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=1.0)
        model.lm_head.weight[END] = 0
    return model


def measure(name: str, *, context: int, count: int, batch: int) -> dict:
    """One row of the table."""
    model = build(name)
    generator = torch.Generator().manual_seed(1)
    prompts = [
        bytes(torch.randint(32, 127, (context,), generator=generator).tolist())
        for _ in range(batch)
    ]
    lm = NativeLM(model, window=context + count)
    cached(lm, prompts[:1], 2)  # compile and warm up
    slow, slow_s = timed(lambda: rerun(model, prompts, count))
    fast, fast_s = timed(lambda: cached(lm, prompts, count))
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "context": context,
        "bytes": count,
        "batch": batch,
        "rerun_bytes_per_cpu_s": batch * count / slow_s,
        "cached_bytes_per_cpu_s": batch * count / fast_s,
        "speedup": slow_s / fast_s,
        "identical": fast == slow,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(name, context=options.context, count=options.bytes, batch=options.batch)
        for name in MODELS
    ]
    print("model        bytes/s rerun  bytes/s cached  speedup  identical text")
    for row in rows:
        print(
            f"{row['model']:12} {row['rerun_bytes_per_cpu_s']:13.1f} "
            f"{row['cached_bytes_per_cpu_s']:15.1f} {row['speedup']:8.1f}  {row['identical']}"
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
