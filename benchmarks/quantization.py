"""What smaller weights cost and give: bits per byte, size and speed per scheme.

    python -m benchmarks.quantization RUN [RUN ...] [--bytes 12288] [--smollm2]

Each run is quantized in memory by every scheme, with and without its head and its Mamba-2 matrices,
and judged on the first bytes of data/prose/heldout.txt, in the windows of its training. Speeds are
bytes per CPU second of one thread, of scoring that text and of writing greedily from a prompt; each
scheme's are measured beside the float32 model's in the same minute, since machines are shared, and
reported as the ratio of medians. Runs are whatever is given: the table names their training bytes,
and figures of a short run speak for that run.

`--smollm2` adds SmolLM2-135M, converted (benchmarks/exact_packages.py fetches it). Its published
weights were 4-bit numbers in groups of 32 (GGUF Q4_1) already, so that int4 rounds them twice.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.common import ROOT, store
from bytelm.hub.quantize import quantize_model
from bytelm.lm.generate import generate
from bytelm.lm.protocol import ByteLM
from bytelm.loading import load

TEXT = ROOT / "data" / "prose" / "heldout.txt"
VARIANTS = (  # scheme, what is kept
    ("int8", ()),
    ("int8", ("head",)),
    ("int8", ("ssm",)),
    ("int8", ("head", "ssm")),
    ("int4-g64", ()),
    ("int4-g64", ("head", "ssm")),
    ("int4-g64", ("head",)),
    ("int4-g128", ()),
)


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def size(model: nn.Module) -> float:
    """Megabytes of all that is stored."""
    seen = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    return sum(seen.values()) / 1e6


def variants(model: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those that differ from one another for this model."""
    has_ssm = any("in_proj" in name for name, _ in model.named_modules())
    for scheme, keep in VARIANTS:
        if scheme in names and (has_ssm or "ssm" not in keep):
            yield scheme, keep


def measure(
    name: str,
    open_lm: Callable[[], tuple[ByteLM, nn.Module]],
    text: bytes,
    *,
    written: int,
    note: str,
    schemes: tuple[str, ...] = ("int8", "int4-g64", "int4-g128"),
    repeats: int = 2,
) -> dict:
    """One model's rows."""
    plain, plain_model = open_lm()
    prompt = text[:256]

    def write(lm: ByteLM) -> Callable[[], object]:
        return lambda: generate(lm, prompt, max_bytes=written, temperature=0)

    base = plain.bits_per_byte(text)
    result = {
        "model": name,
        "note": note,
        "bytes": len(text),
        "bits_per_byte": base,
        "megabytes": size(plain_model),
        "rows": [],
    }
    for scheme, keep in variants(plain_model, schemes):
        lm, model = open_lm()
        try:
            layers, left = quantize_model(model, scheme, keep=keep)
        except ValueError as error:
            print(f"{name} {scheme}: {error}")
            continue
        bits = lm.bits_per_byte(text)
        part = text[:4096]
        scored: dict[str, list[float]] = {"plain": [], "small": []}
        wrote: dict[str, list[float]] = {"plain": [], "small": []}
        for each in (plain, lm):
            write(each)()  # warm up
        for _ in range(repeats):
            for lm_name, each in (("plain", plain), ("small", lm)):
                scored[lm_name].append(cpu_seconds(partial(each.score, part)))
                wrote[lm_name].append(cpu_seconds(write(each)))
        row = {
            "scheme": scheme,
            "keep": list(keep),
            "matrices": len(layers),
            "left": len(left),
            "megabytes": size(model),
            "bits_per_byte": bits,
            "cost": bits - base,
            "scoring_speed": ratio(scored),
            "writing_speed": ratio(wrote),
            "writing_bytes_per_cpu_s": written / statistics.median(wrote["small"]),
        }
        print(json.dumps(row), flush=True)
        result["rows"].append(row)
    return result


def ratio(seconds: dict[str, list[float]]) -> float:
    return statistics.median(seconds["plain"]) / statistics.median(seconds["small"])


def of_run(path: Path, text: bytes, written: int) -> dict:
    """A run directory."""

    def open_lm() -> tuple[ByteLM, nn.Module]:
        lm = load(path)
        return lm, lm.model  # type: ignore[attr-defined]

    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    seen = max(row.get("bytes_seen", 0) for row in rows)
    recipe = (path / "recipe.toml").read_text().split('"')[1]
    return measure(
        recipe, open_lm, text, written=written, note=f"trained on {seen / 1e6:.1f} MB, seed 0"
    )


def of_smollm2(text: bytes, written: int) -> dict:
    """SmolLM2-135M in float32, converted."""
    from benchmarks.exact_packages import package_file
    from bytelm.exact import load_token_model

    def open_lm() -> tuple[ByteLM, nn.Module]:
        lm = load_token_model(package_file("smollm2"), mode="canonical")
        return lm, lm.lm.model  # type: ignore[attr-defined]

    return measure(
        "SmolLM2-135M-Instruct",
        open_lm,
        text,
        written=written,
        note="from GGUF Q4_1, read in mode canonical",
        schemes=("int8", "int4-g64"),
        repeats=1,
    )


def table(results: list[dict]) -> list[list[object]]:
    rows: list[list[object]] = [
        ["model", "scheme", "kept", "MB", "bits/byte", "cost", "scoring", "writing", "left"]
    ]
    for result in results:
        plain = [f"{result['megabytes']:.2f}", f"{result['bits_per_byte']:.4f}", "0", "1x", "1x", 0]
        rows.append([f"{result['model']} ({result['note']})", "float32", "", *plain])
        for row in result["rows"]:
            rows.append(
                [
                    "",
                    row["scheme"],
                    ", ".join(row["keep"]),
                    f"{row['megabytes']:.2f}",
                    f"{row['bits_per_byte']:.4f}",
                    f"{row['cost']:+.4f}",
                    f"{row['scoring_speed']:.2f}x",
                    f"{row['writing_speed']:.2f}x",
                    row["left"],
                ]
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--bytes", type=int, default=12_288)
    parser.add_argument("--smollm2", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = TEXT.read_bytes()
    results = []
    for path in options.runs:
        results.append(of_run(path, text[: options.bytes], 128))
        keep(results)
    if options.smollm2:
        results.append(of_smollm2(text[:2048], 16))
        keep(results)


def keep(results: list[dict]) -> None:
    """Store what there is: a run takes minutes, and a stopped one shall not lose all."""
    store("quantization", {"text": "data/prose/heldout.txt", "results": results}, table(results))


if __name__ == "__main__":
    main()
