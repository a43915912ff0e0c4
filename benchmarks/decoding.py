"""Decoding: in place (eager, compiled) beside immutable states and transformers' generate.

    python -m benchmarks.decoding [--rounds 5]

All contenders of a table write in turn, in one process and one thread, after the same prompt of 64
bytes, with random weights whose heads are sharpened and never end a text; rates are bytes per
second of process CPU time from the first byte to the last, medians over the rounds, and ratios are
medians of those of each round. Texts of all our ways must be identical. The fair baselines for the
flat Transformer are a Llama of the same shape with transformers' dynamic cache, and with its static
cache and torch.compile, whose compilation is not counted. Then, in processes of their own, a prompt
of 64 KiB: time to the first byte and peak memory (a flat model with full attention reads 16 KiB).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.common import store
from bytelm.arch.base import ByteModel
from bytelm.lm.decoding import Immutable
from bytelm.lm.generation import Generation
from bytelm.lm.native import NativeLM
from bytelm.lm.options import GenerateOptions
from bytelm.registry import architecture
from bytelm.vocab import END, ByteVocab

PROMPT = 64  # bytes
STEPS = {1: 100, 16: 40}  # bytes per text, of a batch of so many
_FLAT = {"layers": 6, "d_model": 256, "heads": 4}
_STAGE = {
    "d_model": [192, 320],
    "d_intermediate": [0, 832],
    "num_heads": [1, 5],
    "head_dim": 96,
    "d_state": 32,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # name -> architecture, its settings
    "flat Transformer": ("transformer", _FLAT),
    "windowed Transformer": ("transformer", {**_FLAT, "window": 128}),
    "Mamba-2": ("hnet", {"layout": ["m6"], "d_model": [256], "d_state": 32, "head_dim": 64}),
    "H-Net, chunks of 5": (
        "hnet",
        {"layout": ["m1", ["T4"], "m1"], "boundaries": ["fixed"], "target": [5.0], **_STAGE},
    ),
    "H-Net, learned": (
        "hnet",
        {
            "layout": ["m2", ["T2"], "m2"],
            "target": [6.0],
            "taught_by": ["space"],
            "taught_fraction": 0.8,
            "ngrams": [2, 3, 4],
            **_STAGE,
        },
    ),
}
# name -> temperature: an untrained router cuts a greedy text, which repeats, almost nowhere
MODELS = {
    "flat Transformer": 0.0,
    "Mamba-2": 0.0,
    "H-Net, chunks of 5": 0.0,
    "H-Net, learned": 1.0,
}
OURS = ("immutable", "eager", "compiled")
PROMPTS = {
    "flat Transformer": 1 << 14,
    "windowed Transformer": 1 << 16,
    "Mamba-2": 1 << 16,
    "H-Net, chunks of 5": 1 << 16,
}


@dataclass
class Written:
    """One round of one contender: CPU seconds per step, the texts, chunks begun (0 = none)."""

    seconds: float
    texts: list[bytes] = field(default_factory=list)
    chunks: int = 0


def build(name: str) -> ByteModel:
    """The model of that shape, untrained."""
    torch.manual_seed(0)
    arch, settings = SHAPES[name]
    kind = architecture(arch)
    model = kind(kind.Config(**settings), ByteVocab()).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=1.0)
        model.lm_head.weight[END:] = 0
    return model


def prompts(batch: int) -> list[bytes]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(97, 123, (batch, PROMPT), generator=generator)
    ids[torch.rand(ids.shape, generator=generator) < 0.2] = 32
    return [bytes(row.tolist()) for row in ids]


def ours(lm: NativeLM, way: str, temperature: float) -> Callable[[int], Written]:
    """Write by one of `OURS`."""

    def write(batch: int) -> Written:
        run = Generation(lm, rows=batch, backend="auto" if way == "immutable" else way)
        options = GenerateOptions(max_bytes=STEPS[batch] + 1, temperature=temperature)
        keys = [run.add(prompt, options) for prompt in prompts(batch)]
        run.step()
        began = time.process_time()
        for _ in range(STEPS[batch]):
            run.step()
        seconds = (time.process_time() - began) / STEPS[batch]
        return Written(seconds, [run.result(key).data for key in keys], run.stats.chunks)

    def by_states(batch: int) -> Written:
        with patch("bytelm.lm.generation.decoding", lambda state, **_: Immutable(state)):
            return write(batch)

    return by_states if way == "immutable" else write


def llama() -> Any:
    """The flat Transformer's shape as transformers has it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    return LlamaForCausalLM(config).eval()


def theirs(model: Any, *, static: bool) -> Callable[[int], Written]:
    """Write greedily by transformers' generate."""
    from transformers import CompileConfig, StoppingCriteria

    class Clock(StoppingCriteria):
        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            self.times.append(time.process_time())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    options: dict[str, Any] = {}
    if static:
        compiling = CompileConfig(fullgraph=True, mode="default", dynamic=False)
        compiling._compile_all_devices = True
        options = {"cache_implementation": "static", "compile_config": compiling}

    @torch.inference_mode()
    def write(batch: int) -> Written:
        ids, clock = torch.tensor([list(prompt) for prompt in prompts(batch)]), Clock()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=STEPS[batch] + 1,
            do_sample=False,
            stopping_criteria=[clock],
            **options,
        )
        return Written((clock.times[-1] - clock.times[0]) / STEPS[batch])

    return write


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """One table: contender -> bytes per CPU second, and its speed-up over the first ones."""
    temperature = MODELS[name]
    lm = NativeLM(build(name), window=1024)
    cases = {way: ours(lm, way, temperature) for way in OURS}
    if name == "flat Transformer":
        model = llama()
        cases["transformers"] = theirs(model, static=False)
        cases["transformers, compiled"] = theirs(model, static=True)
    found = {way: [write(batch)] for way, write in cases.items()}  # compiles, and warms up
    for _ in range(rounds):
        for way, write in cases.items():
            found[way].append(write(batch))
    texts = [found[way][0].texts for way in OURS]
    seconds = {way: [one.seconds for one in many[1:]] for way, many in found.items()}
    rows = {}
    for way, times in seconds.items():
        rows[way] = {"bytes_per_cpu_s": batch / statistics.median(times)}
        for base in ("immutable", "transformers", "transformers, compiled"):
            if base in seconds and base != way:
                pairs = zip(seconds[base], times, strict=True)
                rows[way][f"x {base}"] = statistics.median(a / b for a, b in pairs)
    chunks = found["eager"][0].chunks
    return {
        "model": name,
        "batch": batch,
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "bytes_per_chunk": batch * STEPS[batch] / chunks if chunks else None,
        "identical_texts": all(same == texts[0] for same in texts),
        "rates": rows,
    }


def read_prompt(name: str, length: int) -> dict[str, float]:
    """Time to the first byte after a prompt, and peak memory, in this process."""
    lm = NativeLM(build(name), window=length + 64)
    run = Generation(lm, rows=1, backend="eager")
    run.add(b"a short one to warm up", GenerateOptions(max_bytes=2))
    list(run)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = (b"".join(prompts(16)) * (length // 1024))[:length]
    run = Generation(lm, rows=1, backend="eager")
    run.add(text, GenerateOptions(max_bytes=1, temperature=0))
    began = time.process_time()
    run.step()
    return {
        "seconds": time.process_time() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mib": before / 1024,
    }


def read_alone(name: str, length: int) -> dict[str, float]:
    """`read_prompt` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.decoding", "--prompt", name, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", nargs=2, metavar=("RECIPE", "BYTES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.prompt:
        name, length = options.prompt
        print(json.dumps(read_prompt(name, int(length))))
        return
    tables = [measure(name, batch, options.rounds) for name in MODELS for batch in STEPS]
    reading = [
        {"model": name, "prompt_bytes": length, **read_alone(name, length)}
        for name, length in PROMPTS.items()
    ]
    header = ["model", "batch", "decoded by", "bytes per CPU second", "x immutable states"]
    table = [[*header, "x transformers"]]
    for row in tables:
        for way, rates in row["rates"].items():
            ratios = [rates.get("x immutable"), rates.get("x transformers")]
            cells = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
            table.append(
                [row["model"], row["batch"], way, f"{rates['bytes_per_cpu_s']:.0f}", *cells]
            )
    for row in reading:
        text = (
            f"{row['prompt_bytes'] >> 10} KiB prompt: first byte after {row['seconds']:.1f} CPU s"
        )
        memory = f"{row['before_mib']:.0f} MiB before, {row['peak_mib']:.0f} MiB at most"
        table.append([row["model"], 1, text, memory, "", ""])
    result = {"rounds": options.rounds, "decoding": tables, "reading": reading}
    store("decoding", result, table)


if __name__ == "__main__":
    main()
