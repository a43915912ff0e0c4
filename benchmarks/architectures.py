"""Ways to read bytes, at equal bytes and equal CPU seconds, on four kinds of text.

    python benchmarks/fetch/make_texts.py TEXTS          # Finnish, Chinese, code: 11 MB of packages
    python -m benchmarks.architectures run --texts TEXTS [--rows FILE] [--runs DIR]
    python -m benchmarks.architectures rates    # generation, for a quiet machine; and the table
    python -m benchmarks.architectures table [--rows FILE]

One rule sets all widths: a training step of 1,024 bytes, optimizer included, takes about 0.2 CPU
seconds on one thread, so that equal bytes are nearly equal CPU and what a model saves at one place
it spends at another. Everything else is the same for all: tables of 2-, 3- and 4-grams beside the
byte table, optimizer, schedule, batch, the first 32 KB of the held-out text in windows of the
context. Each run is one line of --rows, with its held-out curve over bytes and CPU seconds; runs
that have a line are not repeated. Models and texts alternate within a seed, so that
drift of the machine hits all alike.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import bytelm
from benchmarks.common import RESULTS, store
from benchmarks.hnet_study import read_rows, run
from bytelm.arch.blt.entropy import threshold_for
from bytelm.files import write_text
from bytelm.lm.generate import generate
from bytelm.lm.native import NativeLM
from bytelm.memory import keep_freed_memory
from bytelm.recipe import Recipe

ROOT = Path(__file__).parents[1]
BYTES, SEEDS, HELDOUT = 98_304, 3, 32_768
TEXTS = ("english", "chinese", "finnish", "code")
DOCUMENT, MARKS = "docs/architectures.md", ("<!-- measured -->", "<!-- /measured -->")
WRITTEN = 800  # bytes that generation is timed over
# arm -> (recipe, settings other than the recipe's)
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flat": ("transformer-tiny", ("layers=4", "d_model=160", "heads=4", "conv=0")),
    "flat, window 128": (
        "transformer-window-tiny",
        ("layers=4", "d_model=192", "heads=4", "conv=0"),
    ),
    "MambaByte": ("mambabyte-tiny", ('layout=["m5"]', "d_model=[192]")),
    "MegaByte, P = 8": ("megabyte-tiny", ()),
    "SpaceByte": ("spacebyte-tiny", ()),
    "wordpool": (
        "wordpool-tiny",
        ("layers=3", "d_model=256", "heads=4", "encoder_layers=1", "d_local=128", "local_heads=2"),
    ),
    "BLT": (
        "blt-tiny",
        ("layers=3", "d_model=256", "heads=4", "d_local=128", "local_heads=2"),
    ),
    "H-Net": (
        "hnet-tiny",
        ("d_model=[128, 256]", "head_dim=64", "d_intermediate=[0, 704]", "num_heads=[1, 4]"),
    ),
}

PATCHER_BYTES, PATCH = 196_608, 5.0  # what BLT's patcher trains on; bytes per patch aimed at


def entry(text: str, arm: str, seed: int, texts: Path) -> dict[str, Any]:
    """One run, as `benchmarks.hnet_study` takes it."""
    recipe, settings = ARMS[arm]
    overrides = [f"model.{setting}" for setting in settings] + data_of(text, texts)
    overrides += ["train.batch_bytes=1024", "train.context_bytes=1024"]
    overrides += ["model.ngrams=[2, 3, 4]", f"evaluate.bytes={HELDOUT}"]
    return {
        "name": f"{text}/{arm}",
        "recipe": recipe,
        "bytes": BYTES,
        "seed": seed,
        "overrides": overrides,
    }


def data_of(text: str, texts: Path) -> list[str]:
    """The settings that name a text's files; English is what recipes have."""
    if text == "english":
        return []
    parts = ("train", "heldout")
    return [f'data.{part}=["{texts / f"{text}-{part}.txt"}"]' for part in parts]


def patcher_of(text: str, texts: Path, runs: Path) -> list[str]:
    """BLT's settings for a text: a patcher trained on it, once for all seeds, and the entropy that
    makes patches of `PATCH` bytes at the beginning of the training text. What that costs is not
    counted to the runs."""
    path = runs / f"{text}/patcher"
    if not path.exists():
        overrides = [f"train.bytes={PATCHER_BYTES}", "train.threads=1", "train.dtype=bfloat16"]
        overrides += ["train.checkpoint_every=0", "evaluate={}", *data_of(text, texts)]
        recipe = Recipe.load("blt-patcher-tiny", overrides=overrides)
        bytelm.train(recipe, run_dir=path)
    lm = bytelm.load(str(path))
    assert isinstance(lm, NativeLM)
    file = ROOT / "data/prose/train.txt" if text == "english" else texts / f"{text}-train.txt"
    with file.open("rb") as stream:
        data = stream.read(32 * 256)
    ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).long().view(32, 256)
    threshold = threshold_for(lm.model, ids, PATCH)
    return [f'model.patcher="{path}"', f"model.threshold={threshold:.4f}"]


def entries(texts: Path) -> Iterator[dict[str, Any]]:
    """All runs in their order."""
    for seed in range(SEEDS):
        for pair in (TEXTS[:2], TEXTS[2:]):
            yield from (entry(text, arm, seed, texts) for arm in ARMS for text in pair)


def writing_rates(runs: Path) -> dict[str, list[float]]:
    """Bytes per CPU second of greedy generation by each English model, one row, compiled, behind
    200 bytes; all models in turn, three times."""
    paths = {arm: runs / f"english/{arm}-seed0" for arm in ARMS}
    models = {arm: bytelm.load(str(path)) for arm, path in paths.items() if path.exists()}
    prompt = (ROOT / "data/prose/heldout.txt").read_bytes()[:200]
    write = partial(generate, prompt=prompt, temperature=0, backend="compiled")
    for lm in models.values():
        write(lm, max_bytes=20)
    found: dict[str, list[float]] = {arm: [] for arm in models}
    for _ in range(3):
        for arm, lm in models.items():
            began = time.process_time()
            write(lm, max_bytes=WRITTEN)
            found[arm].append(round(WRITTEN / (time.process_time() - began), 1))
            print(arm, found[arm][-1], flush=True)
    return found


def run_all(texts: Path, rows: Path, runs: Path) -> None:
    """Every run that has no line yet."""
    runs.mkdir(parents=True, exist_ok=True)
    done = {(row["name"], row["seed"]) for row in read_rows(rows)}
    for todo in entries(texts):
        text, _, arm = todo["name"].partition("/")
        if (todo["name"], todo["seed"]) in done:
            continue
        if arm == "BLT":
            todo["overrides"] += patcher_of(text, texts, runs)
        row = run(todo, runs)
        row |= {"text": text, "arm": arm}
        del row["operations"]
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        kept = ("name", "seed", "bits_per_byte", "cpu_seconds")
        print(json.dumps({key: row[key] for key in kept}), flush=True)


def at_seconds(curve: list[list[float]], seconds: float) -> float:
    """Bits per byte after that many CPU seconds, between the points of a curve (bytes, CPU seconds,
    bits per byte); its last point, if it ends before.

    >>> at_seconds([[10, 1.0, 3.0], [20, 2.0, 2.0]], 1.5)
    2.5
    """
    before = curve[0]
    for point in curve[1:]:
        if point[1] >= seconds:
            share = (seconds - before[1]) / (point[1] - before[1])
            return before[2] + share * (point[2] - before[2])
        before = point
    return curve[-1][2]


def mean(values: list[float]) -> float:
    """Of at least one value."""
    return statistics.mean(values)


def write_table(rows: list[dict[str, Any]], rates: dict[str, list[float]]) -> None:
    """One line per text and arm; the CPU seconds compared at are those of a text's fastest arm. The
    table also goes into docs/architectures.md, and English figures into the cards of recipes."""
    table: list[list[object]] = [
        [
            *("text", "model", "parameters", "bits/byte at equal bytes (seeds)"),
            *("at equal CPU seconds", "bytes per chunk", "training kB per CPU s"),
            "generation bytes per CPU s",
        ]
    ]
    for text in TEXTS:
        here = [row for row in rows if row["text"] == text]
        arms = [arm for arm in ARMS if any(row["arm"] == arm for row in here)]
        spent = {a: mean([r["cpu_seconds"] for r in here if r["arm"] == a]) for a in arms}
        for arm in arms:
            mine = [row for row in here if row["arm"] == arm]
            at = [at_seconds(row["curve"], min(spent.values())) for row in mine]
            rate = f"{statistics.median(rates[arm]):.0f}" if arm in rates else ""
            table.append([text, arm, *figures(mine, at), rate if text == "english" else ""])
    result = {"bytes": BYTES, "heldout_bytes": HELDOUT, "runs": rows, "generation": rates}
    store("architectures", result, table)
    page = (ROOT / DOCUMENT).read_text()
    before, rest = page.split(MARKS[0])
    made = (RESULTS / "architectures.md").read_text()
    write_text(ROOT / DOCUMENT, f"{before}{MARKS[0]}\n{made}{MARKS[1]}{rest.split(MARKS[1])[1]}")
    for arm, (recipe, settings) in ARMS.items():
        mine = [row for row in rows if row["text"] == "english" and row["arm"] == arm]
        if mine and not settings:
            write_text(ROOT / "models" / f"{recipe}.md", card(recipe, mine))


def figures(mine: list[dict[str, Any]], at: list[float]) -> list[str]:
    """The cells of one text and arm; at: bits per byte at equal CPU seconds."""
    bits = [row["bits_per_byte"] for row in mine]
    chunks = [length for row in mine for length in row["last_chunk_bytes"].values()]
    speed = mean([row["bytes"] / row["cpu_seconds"] for row in mine]) / 1000
    return [
        f"{mine[0]['parameters'] / 1e6:.1f} M",
        f"**{mean(bits):.3f}** ({', '.join(f'{b:.3f}' for b in bits)})",
        f"{mean(at):.3f}",
        f"{mean(chunks):.2f}" if chunks else "1",
        f"{speed:.1f}",
    ]


def card(recipe: str, mine: list[dict[str, Any]]) -> str:
    """models/RECIPE.md of a recipe that is an arm as it stands."""
    about = (ROOT / "models" / f"{recipe}.toml").read_text().splitlines()[0].removeprefix("# ")
    bits = ", ".join(f"{row['bits_per_byte']:.3f}" for row in mine)
    seconds = mean([row["cpu_seconds"] for row in mine])
    chunks = mean([length for row in mine for length in row["last_chunk_bytes"].values()])
    seeds = "seed 0" if len(mine) == 1 else f"seeds 0 to {len(mine) - 1}"
    return (
        f"# {recipe}\n\n{about} {mine[0]['parameters']:,} parameters.\n\n"
        f"After its first {BYTES:,} bytes ({seconds:.0f} CPU seconds on one thread, {seeds}): "
        f"**{bits}** bits per byte of the first {HELDOUT:,} bytes of "
        f"data/prose/heldout.txt in windows that do not overlap; chunks of {chunks:.2f} bytes. "
        "The recipe itself trains on seven times as many.\n\n"
        "Beside the other architectures at equal bytes and equal CPU seconds, on four kinds of "
        "text: [docs/architectures.md](../docs/architectures.md).\n\n"
        "Command: `python -m benchmarks.architectures run`, then `table`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "rates", "table"))
    scratch = Path(tempfile.gettempdir())
    parser.add_argument("--texts", type=Path, default=scratch / "texts")
    parser.add_argument("--rows", type=Path, default=scratch / "architectures.jsonl")
    parser.add_argument("--runs", type=Path, default=scratch / "architectures-runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    stored = RESULTS / "architectures.json"
    before = json.loads(stored.read_text()) if stored.exists() else {"runs": []}
    rates = before.get("generation", {})
    if not options.rows.exists():  # resume from what is stored
        write_text(options.rows, "".join(json.dumps(row) + "\n" for row in before["runs"]))
    if options.command == "run":
        run_all(options.texts.resolve(), options.rows, options.runs)
        return
    if options.command == "rates":
        rates = writing_rates(options.runs)
    write_table(read_rows(options.rows), rates)


if __name__ == "__main__":
    main()
