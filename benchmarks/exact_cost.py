"""What converted models cost: the tokenizer's side by kind of text, and memory of long contexts.

    python -m benchmarks.exact_cost [--out benchmarks/results/exact_cost.json]

1. *Tokenizer*: microseconds of CPU, steps of the prefix trie, and bytes retained per byte of text,
   for the canonical token prefixes of texts of several kinds at two lengths. Linear cost means that
   the figures of the longer text equal those of the shorter one.
2. *Canonicalised*: the same model of 12 tokens masked to what its tokenizer writes, read at two
   lengths of a text in which nothing ends a piece.
3. *Long context*: peak resident memory of reading a context of 32,768 tokens with a vocabulary of
   50,000 and a tiny model (each in a process of its own), and what the same tokens' distributions
   would take if held at once.
4. *Long pattern*: CPU seconds to build the automaton of `a{4000}`.
5. *Feeding*: CPU seconds of 400 feeds of several bytes with the log-probability asked after each,
   against scoring the same text at once.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ROOT, machine
from benchmarks.exact_packages import package_file
from bytelm.exact import TabularLM, convert
from bytelm.exact.converter import ByteConverter
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder, PlainBPE
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.token_node import TokenString
from bytelm.files import write_text
from bytelm.lm.regex import regex_dfa

SIZES = (5_000, 20_000)
CONTEXT, VOCABULARY = 32_768, 50_000


def texts(size: int) -> dict[str, bytes]:
    """Texts of several kinds, of `size` bytes each. SmolLM2's vocabulary cannot write some of the
    random bytes, so its side of that text ends early (tests/exact/test_canonical_cost.py has one
    that can)."""
    draw = random.Random(0)
    prose = (ROOT / "data/prose/heldout.txt").read_bytes()
    return {
        "english": (prose * (size // len(prose) + 1))[:size],
        "dna": bytes(draw.choices(b"ACGT", k=size)),
        "zeros": bytes(size),
        "random bytes": draw.randbytes(size),
        "one identifier": "".join(draw.choices("abcdefgh_XYZ019", k=size)).encode(),
    }


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def walk(encoder: Encoder, trie: PrefixTrie, data: bytes):
    cursor = encoder.begin(TokenString(trie), trie)
    for byte in data:
        cursor = cursor.push(byte)
        cursor.here()
    return cursor


def tokenizer_cost() -> dict[str, dict]:
    """Per kind of text and size: microseconds, steps and retained bytes for each byte."""
    tables = read_gguf_tokenizer(read_metadata(package_file("smollm2")))
    encoder, trie = tables.require_encoder(), PrefixTrie(tables.vocab_bytes, tables.eos_ids)
    steps = 0
    inner = PrefixTrie.narrow

    def counted(*given):
        nonlocal steps
        steps += 1
        return inner(*given)

    found: dict[str, dict] = {}
    for kind in texts(1):
        found[kind] = {}
        for size in SIZES:
            data = texts(size)[kind]
            walk(encoder, trie, data[:2000])
            micro = seconds(lambda d=data: walk(encoder, trie, d)) / size * 1e6
            PrefixTrie.narrow, steps = counted, 0  # type: ignore[method-assign]
            tracemalloc.start()
            held = walk(encoder, trie, data)
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            PrefixTrie.narrow = inner  # type: ignore[method-assign]
            del held
            found[kind][str(size)] = {
                "microseconds": micro, "steps": steps / size, "retained_bytes": kept / size
            }  # fmt: skip
            print(kind, size, json.dumps(found[kind][str(size)]), flush=True)
    return found


def canonicalised_cost() -> dict[str, float]:
    """CPU microseconds for each byte of a text of one letter, at two lengths."""
    merges = [(b"a", b"b"), (b"ab", b"c"), (b"b", b"c"), (b"c", b"a"), (b"a", b"a"), (b"aa", b"aa")]
    vocab = [b"a", b"b", b"c", *(a + b for a, b in merges)]
    ranks = {pair: i for i, pair in enumerate(merges)}
    pairs = BytePairs({data: i for i, data in enumerate(vocab)}, lambda a, b: ranks.get((a, b)))
    law = np.full(len(vocab) + 1, 1 / (len(vocab) + 1))
    lm = ByteConverter(
        _Memoryless(law, vocab), PlainBPE(pairs), mode="canonicalised", beam=1, epsilon=0
    )
    lm.score(b"a" * 100)
    return {str(n): seconds(lambda n=n: lm.score(b"a" * n)) / n * 1e6 for n in (1000, 8000)}


class _Memoryless(TabularLM):
    """The same distribution after every token; nodes are nothing, so that only the converter's
    own cost is measured."""

    def __init__(self, law, vocab):
        super().__init__(lambda history: law, [*vocab, None], eos_ids={len(vocab)})
        self._row = torch.from_numpy(np.log(law))

    def root(self, cache):
        return (), self._row

    def extend(self, cache, rows):
        return [()] * len(rows), self._row.expand(len(rows), -1)


def read_long_context(tokens: int) -> None:
    """Read a context of so many tokens with a tiny Llama, and print this process's peak memory."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from bytelm.exact.models.huggingface import HuggingFaceLM

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=2 * CONTEXT,
        tie_word_embeddings=True,
    )  # fmt: skip
    vocab: list[bytes | None] = [bytes([i]) for i in range(256)]
    vocab += [b"%06d" % i for i in range(VOCABULARY - 257)] + [None]
    model = LlamaForCausalLM(config).eval()
    lm = HuggingFaceLM(model, vocab, eos_ids={VOCABULARY - 1}, start_ids=[VOCABULARY - 1])
    encode = lambda data: [256 + int(data[i : i + 6]) for i in range(0, len(data), 6)]  # noqa: E731
    converter = ByteConverter(
        lm,
        CallableEncoder(encode, vocab),
        mode="all",
        beam=8,
        epsilon=1e-3,
        specials={"<end>": VOCABULARY - 1},
    )
    converter.start(b"", context=[b"000007" * 10, "<end>"]).logprobs()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    converter.start(b"1", context=[b"000007" * tokens, "<end>"]).logprobs()
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"before_mb": before / 1024, "peak_mb": peak / 1024, "cpu_seconds": spent}))


def long_context() -> dict[str, dict]:
    found: dict[str, dict] = {}
    for tokens in (2048, 8192, CONTEXT):
        command = [sys.executable, "-m", "benchmarks.exact_cost", "--context", str(tokens)]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        found[str(tokens)] = json.loads(run.stdout.strip().splitlines()[-1])
        found[str(tokens)]["distributions_mb"] = tokens * VOCABULARY * 4 / 2**20
        print(tokens, json.dumps(found[str(tokens)]), flush=True)
    return found


def feeding() -> dict[str, float]:
    """CPU seconds of feeds of three bytes with log P after each, and of one score."""
    from bytelm.exact.models.tabular import TokenNgramLM

    data = (ROOT / "data/prose/heldout.txt").read_bytes()[:1200]
    vocab: list[bytes | None] = [*(bytes([i]) for i in range(256)), b"th", b"the", b" the", None]
    lm = convert(TokenNgramLM([list(data)], vocab, eos_ids={259}), mode="all")

    def fed() -> None:
        state = lm.start()
        for i in range(0, len(data), 3):
            state = state.feed(data[i : i + 3])
            assert state.logprob < 0

    lm.score(data)
    return {"feeds": seconds(fed), "score": seconds(lambda: lm.score(data))}


SECTIONS: dict[str, Callable[[], object]] = {
    "tokenizer": tokenizer_cost,
    "canonicalised": canonicalised_cost,
    "long_context": long_context,
    "long_pattern": lambda: seconds(lambda: regex_dfa("a{4000}")),
    "feeding": feeding,
}


def table(report: dict) -> str:
    lines = ["| text | " + " | ".join(f"{n} bytes: µs / steps / retained" for n in SIZES) + " |"]
    lines.append("|---|" + "---|" * len(SIZES))
    for kind, sizes in report["tokenizer"].items():
        cells = [
            f"{one['microseconds']:.0f} / {one['steps']:.1f} / {one['retained_bytes']:.0f}"
            for one in sizes.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| context, tokens | memory added, MB | its distributions at once, MB |"]
    lines.append("|---|---|---|")
    for tokens, one in report["long_context"].items():
        added = one["peak_mb"] - one["before_mb"]
        lines.append(f"| {tokens} | {added:.0f} | {one['distributions_mb']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/exact_cost.json")
    parser.add_argument("--context", type=int, help="only read a context of so many tokens")
    parser.add_argument("--only", choices=SECTIONS, help="measure this, keep the rest as stored")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.context:
        read_long_context(arguments.context)
        return
    report = json.loads(arguments.out.read_text()) if arguments.only else {}
    report["machine"] = machine()
    for name in [arguments.only] if arguments.only else SECTIONS:
        report[name] = SECTIONS[name]()
    write_text(arguments.out, json.dumps(report, indent=1) + "\n")
    write_text(arguments.out.with_suffix(".md"), table(report))
    print({name: report[name] for name in ("canonicalised", "long_pattern", "feeding")})


if __name__ == "__main__":
    main()
