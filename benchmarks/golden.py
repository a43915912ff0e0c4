"""Bit-identity of two revisions: what a change of structure must not change.

    python -m benchmarks.golden 42d649e        # this working tree against that revision

Records, in a process of its own per tree and on one thread, the losses of every recipe both trees
have, ids of every bundled tokenizer, scores and texts of the runs just trained, and the exact
converter's scores over a random Llama in all three modes, and compares them bit for bit. Runs that
the other revision wrote are then loaded and resumed by this tree: same scores, same losses.
Floats depend on the processor and on torch, so nothing is stored: both sides are computed here.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIRST, RESUMED = 4, 6  # steps trained, and steps after the resumed part
MODES = ("all", "canonical", "canonicalised")


def record(out: Path, *, runs_of: Path | None = None) -> None:
    """Write golden.json and runs into `out` with the bytelm that is importable.

    runs_of  a folder that another tree recorded: also score and resume copies of its runs
    """
    import torch

    torch.set_num_threads(1)
    root = Path.cwd()
    names = sorted(path.stem for path in (root / "models").glob("*-tiny.toml"))
    found: dict[str, Any] = {"tokenizers": _tokenizers(root), "converter": _converter(root)}
    for name in names:
        found[f"train {name}"] = _train(name, out / "runs" / name, steps=FIRST)
        found[f"use {name}"] = _use(out / "runs" / name, root)
        found[f"resume {name}"] = _train(name, out / "runs" / name, steps=RESUMED)
        if runs_of is not None and (runs_of / "kept" / name).is_dir():
            found[f"old use {name}"] = _use(runs_of / "kept" / name, root)
            found[f"old resume {name}"] = _train(name, runs_of / "kept" / name, steps=RESUMED)
    (out / "golden.json").write_text(json.dumps(found, indent=1))


def _recipe(name: str, steps: int) -> Any:
    """The recipe cut to a few small steps that depend on no clock."""
    from bytelm import Recipe

    tree = Recipe.load(name).to_dict()
    for key in ("max_minutes", "clock", "bytes"):
        tree["train"].pop(key, None)
    tree["train"] |= {"steps": steps, "dtype": "float32", "threads": 1, "checkpoint_every": 2}
    tree["train"]["batch_bytes"] = 2 * tree["train"]["context_bytes"]
    tree["schedule"]["warmup"] = 2
    tree["evaluate"] = {"every": 2, "bytes": 4096, "final": False}
    tree["log"] = {**tree.get("log", {}), "every": 1}
    return Recipe.from_dict(tree)


def _train(name: str, run: Path, *, steps: int) -> list[dict[str, Any]]:
    """Train (or resume) and give the rows of metrics.jsonl without clocks, floats as hex."""
    import shutil

    import bytelm

    bytelm.train(_recipe(name, steps), run_dir=run, resume=run.exists())
    if steps == FIRST:
        shutil.copytree(run, run.parents[1] / "kept" / name, copy_function=shutil.copy2)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "bytes_per_second")
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if k not in clocks}
        for row in rows
    ]


def _use(run: Path, root: Path) -> dict[str, Any]:
    """Scores, next-byte law and greedy and sampled text of a trained run; labels of others."""
    import bytelm
    from bytelm.errors import BytelmError

    text = (root / "data/prose/heldout.txt").read_bytes()[:700]
    try:
        lm = bytelm.load(run)
    except BytelmError as error:  # no causal model: not of the older tree
        return {"refused": type(error).__name__}
    return {
        "score": _digest(lm.score(text)),
        "end": _digest(lm.score_with_end(text[:90])),
        "logprobs": _digest(lm.start(text[:300]).logprobs()),
        "greedy": bytelm.generate(lm, text[:40], max_bytes=24, temperature=0).hex(),
        "sample": bytelm.generate(lm, text[:40], max_bytes=24, top_p=0.9, seed=3).hex(),
    }


def _tokenizers(root: Path) -> dict[str, str]:
    """A digest of the ids of prose, code and an executable, per bundled tokenizer."""
    import bytelm

    samples = [
        (root / "data/prose/heldout.txt").read_bytes()[:50_000],
        (root / "data/executables/wrapt/manylinux2014_x86_64.so").read_bytes()[:50_000],
        b"",
        bytes(range(256)),
    ]
    folders = sorted(path.parent for path in (root / "tokenizers").glob("*/tokenizer.json*"))
    found = {}
    for folder in folders:
        bpe = bytelm.BinaryBPE.load(folder)
        ids = [bpe.encode(sample) for sample in samples]
        found[folder.name] = hashlib.sha256(b"|".join(x.tobytes() for x in ids)).hexdigest()
    return found


def _converter(root: Path) -> dict[str, str]:
    """Scores of a random Llama over a small BPE, converted in each mode."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    import bytelm

    prose = (root / "data/prose/train.txt").read_text(encoding="utf-8")[:200_000]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prose], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    text = prose[5_000:5_120].encode() + b" caf\xc3\xa9 0x7f"
    found = {}
    for mode in MODES:
        lm = bytelm.convert(model, wrapped, mode=mode)
        found[mode] = _digest(lm.score_with_end(text))
        found[f"{mode} stepwise"] = _digest(lm.start(text[:30]).feed(text[30:33]).logprobs())
        found[f"{mode} text"] = bytelm.generate(lm, text[:9], max_bytes=12, seed=1).hex()
    return found


def _digest(tensor: Any) -> str:
    """A hash of a tensor's dtype, shape and bits."""
    data = tensor.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{data.dtype}{data.shape}".encode() + data.tobytes()).hexdigest()[:24]


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two recordings, entries of the old one only; empty = identical."""
    wrong = [f"{key}: not recorded any more" for key in old if key not in new]
    wrong += [f"{key} differs" for key, value in old.items() if new.get(key, value) != value]
    for key, value in new.items():
        if key.startswith("old ") and value != old[key.removeprefix("old ")]:
            wrong.append(f"{key}: a run of the other revision behaves otherwise here")
    return wrong


def main() -> None:
    """Compare, print what differs, and exit 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", help="the revision to compare this tree with")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="leave both recordings in this folder")
    given = parser.parse_args()
    if given.record is not None:
        record(given.record, runs_of=given.runs_of)
        return
    if given.revision is None:
        parser.error("name a revision to compare with, such as 42d649e")
    with tempfile.TemporaryDirectory() as temporary:
        place = given.keep or Path(temporary)
        tree = Path(temporary) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", str(tree), given.revision], check=True)
        try:
            old = _recorded(tree, place / "old")
            new = _recorded(ROOT, place / "new", "--runs-of", str(place / "old"))
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    wrong = compare(old, new)
    print("\n".join(wrong) or f"bit-identical: {len(old)} recordings of {given.revision}")
    sys.exit(bool(wrong))


def _recorded(tree: Path, out: Path, *more: str) -> dict[str, Any]:
    """What this script records with the bytelm of `tree`."""
    out.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).resolve())
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, "--record", str(out.resolve()), *more]
    subprocess.run(command, cwd=tree, env=environment, check=True, stdout=sys.stderr)
    return json.loads((out / "golden.json").read_text())


if __name__ == "__main__":
    main()
