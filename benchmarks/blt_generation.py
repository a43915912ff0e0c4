"""BLT's generation beside transformers': bytes per CPU second at contexts of 512 bytes.

    python -m benchmarks.blt_generation [--bytes 12] [--repeats 3]

One random model of transformers' `BltForCausalLM` and the same weights read by
`bytelm.hub.from_official` continue the same 512 bytes of prose greedily, in turn, on one thread.
transformers runs with `use_cache=False`, the only one of its modes whose text is that of its own
full forward pass, so it reads the whole context again for every byte. Ours reads the context once
and then one byte at a time; its time is given with that reading and without it. Both must write the
same bytes, of one text and of four at once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.common import ROOT, ratio, store
from bytelm.hub.official import from_official
from bytelm.lm.generate import generate_batch
from bytelm.lm.native import NativeLM

CONTEXT, OFFSET, BOS, EOS = 512, 4, 1, 2  # byte b is row b + 4 in transformers
LONG = 256  # bytes of ours from whose time the reading of the context is told apart


def config(threshold: float) -> dict[str, object]:
    """Arguments of `BltConfig`: the released proportions at a size that one core can run."""
    local = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 704}
    return {
        "patching_threshold": threshold,
        "encoder_hash_byte_group_vocab": 2000,
        "encoder_config": {**local, "num_hidden_layers": 1},
        "decoder_config": {**local, "num_hidden_layers": 3, "hidden_size_global": 512},
        "global_config": {
            "hidden_size": 512,
            "num_attention_heads": 8,
            "num_hidden_layers": 8,
            "intermediate_size": 1408,
        },
        "patcher_config": {
            "hidden_size": 192,
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "intermediate_size": 512,
        },
    }


def theirs(model: torch.nn.Module, prompts: list[bytes], count: int) -> list[bytes]:
    """Greedy continuations, with a full forward pass per byte."""
    ids = torch.tensor([[BOS, *(byte + OFFSET for byte in prompt)] for prompt in prompts])
    with torch.inference_mode():
        for _ in range(count):
            logits = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]
            logits[:, [0, BOS, EOS, 3]] = -torch.inf  # every text goes on
            ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
    return [bytes((row[-count:] - OFFSET).tolist()) for row in ids]


def ours(lm: NativeLM, prompts: list[bytes], count: int) -> list[bytes]:
    """The same by the decoding engine."""
    rows = generate_batch(lm, prompts, max_bytes=count, temperature=0)
    return [row.data for row in rows]


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    run()
    return time.process_time() - began


def median_entropy(model: torch.nn.Module, ids: torch.Tensor, share: float) -> float:
    """The threshold that a share of positions exceed."""
    with torch.inference_mode():
        entropies, _, _ = model.model.patcher(ids, patch_size=1, threshold=1.0)
    return float(entropies.flatten().quantile(1 - share))


def compare(
    model: torch.nn.Module, lm: NativeLM, prompts: list[bytes], options: argparse.Namespace
) -> dict[str, object]:
    """Both in turn, and whether they write the same."""
    count = options.bytes
    same = theirs(model, prompts, count) == ours(lm, prompts, count)
    ours(lm, prompts, LONG)  # kernels are loaded from here on
    slow, fast, long = [], [], []
    for _ in range(options.repeats):
        slow.append(seconds(partial(theirs, model, prompts, count)))
        fast.append(seconds(partial(ours, lm, prompts, count)))
        long.append(seconds(partial(ours, lm, prompts, LONG)))
    alone = [(b - a) / (LONG - count) for a, b in zip(fast, long, strict=True)]
    per_byte = [s / count for s in slow]
    return {
        "same_bytes": same,
        "transformers_seconds": slow,
        "bytelm_seconds": fast,
        "bytelm_long_seconds": long,
        "ratio": ratio(per_byte, [b / LONG for b in long]),
        "ratio_same_length": ratio(slow, fast),
        "ratio_without_context": ratio(per_byte, alone),
    }


def figures(rows: int, result: dict[str, Any], count: int) -> list[str]:
    """Bytes per CPU second of both, and the ratios."""
    slow = rows * count / statistics.median(result["transformers_seconds"])
    fast = rows * LONG / statistics.median(result["bytelm_long_seconds"])
    ratios = (result["ratio"], result["ratio_without_context"])
    return [f"{slow:.1f}", f"{fast:.0f}", *(f"{value:.0f}" for value in ratios)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from transformers import BltConfig, BltForCausalLM

    torch.set_num_threads(1)
    text = (ROOT / "data" / "prose" / "heldout.txt").read_bytes()
    prompts = [text[i * 9000 : i * 9000 + CONTEXT] for i in range(4)]
    ids = torch.tensor([[BOS, *(byte + OFFSET for byte in prompts[0])]])
    torch.manual_seed(0)
    model = BltForCausalLM(BltConfig(**config(1.0))).eval()
    with torch.no_grad():
        model.lm_head.weight[EOS] = 0  # so that no text ends
    model.config.patching_threshold = median_entropy(model, ids, 1 / 4.5)
    lm = NativeLM(from_official("blt", model.config.to_dict(), model.state_dict()), window=4096)
    chunks = len(prompts[0]) / int(lm.chunk_boundaries(prompts[0])[0].sum())
    found = {rows: compare(model, lm, prompts[:rows], options) for rows in (1, 4)}
    table: list[list[object]] = [
        ["rows", "transformers, bytes/CPU s", "bytelm", "ratio", "ratio without the context"],
        *([rows, *figures(rows, result, options.bytes)] for rows, result in found.items()),
    ]
    parameters = sum(p.numel() for p in model.parameters())
    store(
        "blt_generation",
        {
            "context": CONTEXT,
            "bytes": options.bytes,
            "long": LONG,
            "parameters": parameters,
            "patch_bytes": chunks,
            "rows": found,
        },
        table,
    )


if __name__ == "__main__":
    main()
