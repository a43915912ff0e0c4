"""Side by side with genlm-bytes: same model object, text, beam and threshold, one process.

    python -m benchmarks.exact_genlm [--bytes 160] [--out benchmarks/results/exact_genlm.json]

needs `pip install genlm-bytes==0.2.0` besides bytelm[hf]. Two tasks: *steps* asks for the next-byte
distribution before every byte of a text that arrives one byte at a time; *scoring* asks for the
log-probability of a known text (genlm-bytes: feeding it and reading logZ, which skips the
distributions; bytelm: `score`). Its batching timer is set to 0.1 ms, because its default of 20 ms
would only add waiting. Seconds are process time, one thread, each task timed after one warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.exact_packages import package_file
from benchmarks.exact_texts import ROOT, texts
from bytelm.exact import ByteConverter
from bytelm.exact.models.huggingface import HuggingFaceLM
from bytelm.exact.models.pretrained import read_gguf_model
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata
from bytelm.files import write_text

Timed = dict[str, float]


def timed(run: Callable[[], float], size: int) -> Timed:
    """bits per byte and bytes per second of `run`, which returns bits."""
    began = time.process_time()
    bits = run()
    return {"bits_per_byte": bits / size, "bytes_per_second": size / (time.process_time() - began)}


class Genlm:
    """genlm-bytes behind the two tasks. A new backend per run: a cache would answer the second."""

    def __init__(self, model, tokenizer, beam: int, epsilon: float):
        from genlm.backend.llm import AsyncTransformer
        from genlm.bytes import BeamParams

        self.make = lambda: AsyncTransformer(model, tokenizer, timeout=1e-4)
        self.parameters = BeamParams(K=beam, prune_threshold=epsilon)

    async def _start(self):
        from genlm.bytes import ByteBeamState

        return await ByteBeamState.initial(self.make(), self.parameters)

    async def steps(self, text: bytes) -> Timed:
        state = await self._start()
        began = time.process_time()
        total = 0.0
        for byte in text:
            total -= float((await state.logp_next()).ps[byte]) / math.log(2)
            state = await (state.prune() << byte)
        return self._result(total, text, began)

    async def scoring(self, text: bytes) -> Timed:
        state = await self._start()
        began = time.process_time()
        for byte in text:
            state = await (state.prune() << byte)
        return self._result(-float(state.logZ) / math.log(2), text, began)

    @staticmethod
    def _result(bits: float, text: bytes, began: float) -> Timed:
        seconds = time.process_time() - began
        return {"bits_per_byte": bits / len(text), "bytes_per_second": len(text) / seconds}


def steps(lm: ByteConverter, text: bytes) -> float:
    state = lm.start()
    bits = 0.0
    for byte in text:
        bits -= state.logprobs()[byte].item() / math.log(2)
        state = state.feed(bytes([byte]))
    return bits


def scoring(lm: ByteConverter, text: bytes) -> float:
    return -float(lm.score(text).sum()) / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bytes", type=int, default=160)
    parser.add_argument("--beam", type=int, default=8)
    parser.add_argument("--epsilon", type=float, default=1e-3)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with data/")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/exact_genlm.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from transformers import AutoTokenizer

    path = package_file("smollm2")
    model = read_gguf_model(path)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tables = read_gguf_tokenizer(read_metadata(path))
    # genlm-bytes starts from the tokenizer's BOS, so here bytelm does as well
    lm = HuggingFaceLM(
        model, tables.vocab_bytes, eos_ids=tables.eos_ids, start_ids=[tokenizer.bos_token_id]
    )
    ours = ByteConverter(
        lm, tables.encoder, mode="all", beam=arguments.beam, epsilon=arguments.epsilon
    )
    theirs = Genlm(model, tokenizer, arguments.beam, arguments.epsilon)
    report: dict = {
        "genlm_bytes": version("genlm-bytes"),
        "bytes": arguments.bytes,
        "beam": arguments.beam,
        "epsilon": arguments.epsilon,
        "results": {},
    }
    scoring(ours, b"warm up, then the clock.")
    asyncio.run(theirs.steps(b"warm"))
    for kind, pieces in texts(arguments.bytes, piece=arguments.bytes, root=arguments.root).items():
        text = pieces[0]
        found = {
            "steps": {
                "genlm-bytes": asyncio.run(theirs.steps(text)),
                "bytelm": timed(lambda text=text: steps(ours, text), len(text)),
            },
            "scoring": {
                "genlm-bytes": asyncio.run(theirs.scoring(text)),
                "bytelm": timed(lambda text=text: scoring(ours, text), len(text)),
            },
        }
        for task in found.values():
            speeds = [task[name]["bytes_per_second"] for name in ("bytelm", "genlm-bytes")]
            task["ratio"] = {"bytes_per_second": speeds[0] / speeds[1]}
        report["results"][kind] = {"bytes": len(text), **found}
        print(kind, json.dumps(found), flush=True)
        write_text(arguments.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
