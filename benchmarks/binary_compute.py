"""Bytes against Binary BPE tokens on executables at equal compute, in bits per byte.

    python -m benchmarks.binary_compute --corpus CORPUS [--seconds 200] [--seeds 1] [--runs DIR]

CORPUS is what `benchmarks/bpe_corpus.py build` makes (503 MB, split by package: no held-out package
is in the training of any model or tokenizer). Every model trains on it with the same optimizer,
bytes per step and bytes of context until this process's CPU clock says stop (one thread; reading
and encoding the data counts). Then it is scored on slices of the held-out packages, the same bytes
for all, in windows as in training. For models over tokens that is the code length of the canonical
tokens of each window, divided by the bytes: an upper bound on their exact byte distribution, which
is given besides on a few slices. Finished runs are kept under --runs and not repeated.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import store
from benchmarks.equal_compute import train, write_card

SLICE, SLICES = 4096, 4  # bytes of one held-out slice; slices a class, of different packages
EXACT = 6  # slices on which the exact figure is computed
TWIN = "transformer-binary-tiny"
MAMBA = ('model={arch="hnet",layout=["m6"],d_model=[256],d_state=32,head_dim=64}',)
MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Transformer, 16K tokens": ("transformer-16k-tiny", ()),
    "Transformer, bytes": (TWIN, ()),
    "Mamba-2, bytes": (TWIN, MAMBA),
    "Mamba-2, 16K tokens": ("transformer-16k-tiny", MAMBA),
    "windowed Transformer (128), bytes": (TWIN, ("model.window=128",)),
    "Transformer, 4K tokens": ("transformer-16k-tiny", ("data.tokenizer=tokenizers/binary-4k",)),
}
CARD = {
    "trained": " of training on the executables of `tokenizers/corpus.toml`",
    "heldout": "slices of its held-out packages,",
    "more": " Of a model over tokens this is the code length of the canonical tokens.\n\n"
    "Side by side with the others, on the same bytes: "
    "[benchmarks/results/binary_compute.md](../benchmarks/results/binary_compute.md). The "
    "recipe itself names the small bundled executables, so that it runs as it is.\n\n"
    "Command: `python -m benchmarks.binary_compute --corpus CORPUS`, the corpus built by "
    "`python benchmarks/bpe_corpus.py`.",
}


def heldout(corpus: Path, folder: Path) -> list[Path]:
    """Slices of held-out executables, from the middle of a file of each package in turn."""
    made = []
    for kind in sorted(path for path in (corpus / "heldout").iterdir() if path.is_dir()):
        packages: dict[str, Path] = {}
        for path in sorted(kind.iterdir()):
            if path.stat().st_size >= 2 * SLICE:
                packages.setdefault(path.stem.split("-", 1)[1], path)
        for path in list(packages.values())[:SLICES]:
            middle = path.stat().st_size // 2
            part = folder / kind.name / path.name
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(path.read_bytes()[middle : middle + SLICE])
            made.append(part)
    return made


def data_overrides(corpus: Path, slices: list[Path]) -> list[str]:
    """Train on every training class of the corpus, hold out the slices."""
    kinds = sorted(path for path in (corpus / "train").iterdir() if path.is_dir())
    held = sorted({str(path.parent / "*.bin") for path in slices})
    return [
        f"data.train={json.dumps([str(kind / '*.bin') for kind in kinds])}",
        f"data.heldout={json.dumps(held)}",
    ]


def exact(run: Path, slices: list[Path]) -> dict[str, float]:
    """Bits per byte of some slices by the canonical tokens and by the exact byte distribution."""
    done = run / "exact.json"
    if done.exists():
        return json.loads(done.read_text())
    from bytelm.evaluate.bits import evaluate_bits
    from bytelm.lm.subword import SubwordLM
    from bytelm.loading import load_run

    lm = load_run(run)
    if not isinstance(lm, SubwordLM):
        return {}
    some = [path.read_bytes()[:1024] for path in slices[:: len(slices) // EXACT]]
    found = {
        "slices_tokens": evaluate_bits(lm.tokens, some).bits_per_byte,
        "slices_exact": evaluate_bits(lm, some).bits_per_byte,
    }
    done.write_text(json.dumps(found))
    return found


def measure(name: str, seed: int, options: Any, slices: list[Path]) -> dict[str, float]:
    """One model's run and figures."""
    recipe, changes = MODELS[name]
    label = name.replace(", ", "-").replace(" ", "-")
    more = [*changes, *data_overrides(options.corpus, slices)]
    figures = train(recipe, seed, options.seconds, options.runs, name=label, more=more)
    return {**figures, **exact(options.runs / f"{label}-{options.seconds:g}s-seed{seed}", slices)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "binary-compute")
    options = parser.parse_args()
    options.corpus, options.runs = options.corpus.resolve(), options.runs.resolve()
    slices = heldout(options.corpus, options.runs / "heldout")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.models}
    for seed in range(options.seeds):  # seeds outermost: drift of the machine hits all alike
        for name in options.models:
            found[name].append(measure(name, seed, options, slices))
    rows: list[list[object]] = [
        ["model", "bits/byte (seeds)", "kB per CPU second", "a few slices: tokens, exact"]
    ]
    for name, results in found.items():
        bits = [r["bits_per_byte"] for r in results]
        speed = statistics.mean(r["bytes_per_second"] for r in results) / 1000
        few = [f"{r['slices_tokens']:.3f}, {r['slices_exact']:.3f}" for r in results if len(r) > 2]
        spread = ", ".join(f"{b:.3f}" for b in bits)
        rows.append([name, f"**{statistics.mean(bits):.3f}** ({spread})", f"{speed:.1f}", *few[:1]])
        rows[-1] += ["bytes"] * (4 - len(rows[-1]))
        if not MODELS[name][1]:
            write_card(MODELS[name][0], options.seconds, results, **CARD)
    size = sum(path.stat().st_size for path in slices)
    about = {"seconds": options.seconds, "heldout_bytes": size, "heldout_slices": len(slices)}
    store("binary_compute", {**about, "runs": found}, rows)


if __name__ == "__main__":
    main()
