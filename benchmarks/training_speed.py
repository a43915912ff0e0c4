"""Training speed: against transformers' Llama of the same shape, and against an older revision.

    python -m benchmarks.training_speed [--revision 0cedd4a] [--rounds 3] [--compile]

Bytes per CPU second of whole steps on one thread: forward, backward, clipping, optimizer. Llama has
scaled-dot-product attention, the same widths and layers, and both have the same batch and torch's
fused AdamW; ours also normalises queries and keys. They take turns step by step in one process. The
revision is a checkout of this repository in a folder of its own; both trees train the revision's
recipes with its batch and optimizer (Muon), in processes that take turns. The share of the peak is
the model's operations (three times those of a forward pass) over what a product of 2048 x 2048
matrices reached in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import nn

from benchmarks.common import ratio, store

ROOT = Path(__file__).resolve().parents[1]
ROWS, CONTEXT = 4, 1024
# and the rows per step at which each is measured
RECIPES = {"hnet-tiny": (4, 1), "mambabyte-tiny": (4,), "transformer-tiny": (4,)}
Step = Callable[[], None]


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per CPU second of the quickest of a few products of square matrices."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(6):
        began = time.process_time()
        a @ b
        times.append(time.process_time() - began)
    return 2 * size**3 / min(times)


def adamw_step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Step:
    """One whole training step of a model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(ids: torch.Tensor, dtype: torch.dtype, *, compiled: bool) -> tuple[Step, float]:
    """A step of transformer-tiny, and its operations."""
    from bytelm import Recipe, build
    from bytelm.data.batch import Batch

    recipe = Recipe.from_dict({**Recipe.load("transformer-tiny").to_dict(), "model": SHAPE})
    model = build(recipe).train()
    if compiled:
        model.compile()
    batch = Batch(ids=ids, targets=ids.roll(-1, 1))

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = model(batch).loss
        assert found is not None
        return found

    return adamw_step(model, loss), 3 * model.flops_per_byte(CONTEXT) * ids.numel()


SHAPE = {"arch": "transformer", "layers": 6, "d_model": 256, "heads": 4}


def llama(ids: torch.Tensor, dtype: torch.dtype, *, compiled: bool) -> Step:
    """A step of a Llama with the same layers, widths and heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=260,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()
    if compiled:
        model.compile()

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return model(input_ids=ids, labels=ids).loss

    return adamw_step(model, loss)


def against_llama(dtype: torch.dtype, *, rounds: int, compiled: bool) -> dict[str, Any]:
    """Both in turn; medians, and the median of the ratios of neighbours."""
    ids = torch.randint(0, 256, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    own, operations = ours(ids, dtype, compiled=compiled)
    steps = {"bytelm": own, "llama": llama(ids, dtype, compiled=compiled)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(2 + 3 * rounds):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn >= 2:
                times[name].append(time.process_time() - began)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    best = peak(dtype)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": compiled,
        "bytes_per_cpu_second": {name: ids.numel() / s for name, s in seconds.items()},
        "ratio": ratio(times["llama"], times["bytelm"]),
        "peak_gflops": best / 1e9,
        "share_of_peak": operations / seconds["bytelm"] / best,
    }


_STEPS = """
import sys, time, statistics, torch
torch.set_num_threads(1)
from bytelm.memory import keep_freed_memory
from bytelm.recipe import Recipe
from bytelm.training.build import build_model, build_objective, open_corpora
from bytelm.training.data import TrainingData
from bytelm.training.distributed import Ranks
from bytelm.training.optimizer import Optimizers
from bytelm.training.precision import DTYPES
from bytelm.training.step import forward_backward
keep_freed_memory()
path, dtype, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = Recipe.load(path, overrides=[f"train.batch_bytes={1024 * rows}"])
corpora = open_corpora(recipe)
objective = build_objective(recipe, corpora)
data = TrainingData(corpora, objective, data=recipe.data, train=recipe.train, seed=0)
model = build_model(recipe, objective)
optimizers = Optimizers(model, recipe.optimizer, muon_dtype=DTYPES[dtype])
batches, times = data.batches(), []
for _ in range(6):
    batch, _ = next(batches)
    began = time.process_time()
    forward_backward(
        model, batch, objective=objective, parts=1, dtype=dtype, ranks=Ranks(torch.device("cpu"))
    )
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizers.step(1.0)
    times.append(time.process_time() - began)
print(1024 * rows / statistics.median(times[2:]))
"""


def against_revision(tree: Path, recipe: str, dtype: str, rows: int, rounds: int) -> dict[str, Any]:
    """The revision's recipe in both trees, in turn."""
    found: dict[str, list[float]] = {"old": [], "new": []}
    path = str(tree / "models" / f"{recipe}.toml")
    for _ in range(rounds):
        for name, place in (("old", tree), ("new", ROOT)):
            environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", _STEPS, path, dtype, str(rows)]
            done = subprocess.run(
                command, cwd=place, env=environment, check=True, capture_output=True, text=True
            )
            found[name].append(float(done.stdout.split()[-1]))
    return {
        "recipe": recipe,
        "dtype": dtype,
        "bytes_per_step": 1024 * rows,
        "bytes_per_cpu_second": {name: statistics.median(v) for name, v in found.items()},
        "ratio": ratio(found["new"], found["old"]),
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="0cedd4a")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also both models compiled")
    given = parser.parse_args()
    torch.set_num_threads(1)
    from bytelm.memory import keep_freed_memory
    from bytelm.training.precision import has_fast_bfloat16

    keep_freed_memory()
    dtypes = [torch.float32]
    dtypes += [torch.bfloat16] if has_fast_bfloat16(torch.device("cpu")) else []
    compiled = [False, True] if given.compile else [False]
    models = [
        against_llama(dtype, rounds=given.rounds, compiled=c) for dtype in dtypes for c in compiled
    ]
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", str(tree), given.revision], check=True)
        try:
            revisions = [
                against_revision(tree, recipe, str(d).removeprefix("torch."), rows, given.rounds)
                for recipe, several in RECIPES.items()
                for d in dtypes
                for rows in several
            ]
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    table: list[list[object]] = [
        ["what", "number format", "bytes per step", "kB per CPU second", "the other", "ratio"]
    ]
    for row in models:
        speeds = row["bytes_per_cpu_second"]
        how = row["dtype"] + (", compiled" if row["compiled"] else "")
        table.append(
            [
                f"transformer-tiny with AdamW against Llama ({row['share_of_peak']:.0%} of the "
                f"{row['peak_gflops']:.0f} GFLOP/s of a matrix product)",
                how,
                ROWS * CONTEXT,
                f"{speeds['bytelm'] / 1000:.2f}",
                f"{speeds['llama'] / 1000:.2f}",
                f"**{row['ratio']:.2f}**",
            ]
        )
    for row in revisions:
        speeds = row["bytes_per_cpu_second"]
        table.append(
            [
                f"{row['recipe']} against {given.revision}",
                row["dtype"],
                row["bytes_per_step"],
                f"{speeds['new'] / 1000:.2f}",
                f"{speeds['old'] / 1000:.2f}",
                f"**{row['ratio']:.2f}**",
            ]
        )
    result = {"models": models, "revision": given.revision, "revisions": revisions}
    store("training_speed", json.loads(json.dumps(result)), table)


if __name__ == "__main__":
    main()
