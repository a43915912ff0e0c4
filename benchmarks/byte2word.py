"""Byte2Word beside its subword twin: masked words, spam, and spam with noise.

    python benchmarks/fetch/make_spam.py DATA
    python -m benchmarks.byte2word --data DATA [--seconds 40] [--seeds 3] [--runs DIR]

Both have the same encoder, head, optimizer and batches and train for the same CPU seconds on one
thread; one makes words from bytes, the other reads the pieces of `tokenizers/words-4k` from a table
(models/byte2word-tiny.toml, models/byte2word-subword-tiny.toml). Masked words: bits per byte of
what was masked and whole words that are right, on held-out prose, the same words for both. Spam:
bodies of e-mails, trained from scratch and clean; then read with a fifth of the words of four
letters or more changed: a letter dropped, two swapped, case turned over, or a misspelling that
people make (codespell), where the word has one. Parameters of both embeddings, here and at the size
of BERT-base, are counted from the models themselves.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet

from benchmarks.common import store
from benchmarks.equal_compute import train
from bytelm.arch.byte2word import Byte2Word, Byte2WordConfig
from bytelm.loading import load_classifier, load_model
from bytelm.recipe import Recipe
from bytelm.vocab import ByteVocab, TokenVocab

QUICK = ("evaluate.bytes=131072", "evaluate.final=false")
ARMS = {"Byte2Word": "byte2word-tiny", "subword twin": "byte2word-subword-tiny"}
CHANGED = 0.2  # share of the longer words that noise changes
Change = Callable[[str, random.Random], str]


def drop(word: str, draw: random.Random) -> str:
    """Without one of its inner letters."""
    at = draw.randrange(1, len(word) - 1)
    return word[:at] + word[at + 1 :]


def swap(word: str, draw: random.Random) -> str:
    """With two neighbours exchanged."""
    at = draw.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def turn_case(word: str, draw: random.Random) -> str:
    """Upper for lower case and the other way round."""
    return word.swapcase()


def noises(typos: dict[str, list[str]]) -> dict[str, Change]:
    """Name -> change of a word."""

    def misspell(word: str, draw: random.Random) -> str:
        known = typos.get(word.lower())
        return word if known is None else draw.choice(known)

    return {"drop": drop, "swap": swap, "case": turn_case, "typos": misspell}


def noisy(text: bytes, change: Change, *, seed: int, share: float) -> bytes:
    """The text with that share of its words of four or more ASCII letters changed."""
    draw = random.Random(seed)

    def turn(found: re.Match[bytes]) -> bytes:
        word = found[0].decode("ascii")
        return (change(word, draw) if draw.random() < share else word).encode("ascii", "replace")

    return re.sub(rb"[A-Za-z]{4,}", turn, text)


def filled(run: Path, seconds: float) -> dict[str, float]:
    """The last held-out figures of a run, and its speed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in rows[::-1] if "heldout_bits_per_masked_byte" in row)
    speed = next(row for row in rows[::-1] if "bytes_seen" in row)["bytes_seen"] / seconds
    return {
        "bits_per_masked_byte": last["heldout_bits_per_masked_byte"],
        "word_accuracy": last["heldout_word_accuracy"],
        "bytes_per_second": speed,
    }


def spam_recipe(recipe: str, data: Path, folder: Path) -> Path:
    """The recipe of an arm, set to tell spam from ham, as a file."""
    tree = Recipe.load(recipe).model_dump(exclude_unset=True, exclude={"name"})
    pieces = tree["objective"].get("read") == "pieces"
    tree["objective"] = {"kind": "classification", "labels": "label"}
    tree["data"] = {
        "train": [str(data / "train.parquet")],
        "heldout": [str(data / "heldout.parquet")],
        "policy": "truncate",
        **({"tokenizer": tree["data"]["tokenizer"]} if pieces else {}),
    }
    tree["train"] |= {"context_bytes": 512}
    file = folder / f"{recipe}-spam.toml"
    file.write_text(Recipe.from_dict(tree).to_toml())
    return file


def heldout_mails(data: Path) -> list[dict[str, Any]]:
    """Every third held-out mail."""
    return parquet.read_table(data / "heldout.parquet").to_pylist()[::3]


def judged(run: Path, data: Path, typos: dict[str, list[str]]) -> dict[str, float]:
    """Accuracy on a third of the held-out mails, clean and with each noise."""
    rows = heldout_mails(data)
    classifier, found = load_classifier(run), {}
    for name, change in {"clean": None, **noises(typos)}.items():
        texts = [row["text"] for row in rows]
        if change is not None:
            share = 1.0 if name == "typos" else CHANGED  # few words have a known misspelling
            texts = [noisy(t, change, seed=i, share=share) for i, t in enumerate(texts)]
        best = classifier.predict(texts).argmax(dim=-1).tolist()
        right = [classifier.labels[b] == row["label"] for b, row in zip(best, rows, strict=True)]
        found[name] = sum(right) / len(right)
    return found


def changed_words(data: Path, typos: dict[str, list[str]]) -> float:
    """Share of the longer words of the held-out mails that have a known misspelling."""
    rows = heldout_mails(data)
    words = [w for row in rows for w in re.findall(rb"[A-Za-z]{4,}", row["text"])]
    return sum(word.decode().lower() in typos for word in words) / len(words)


def embeddings(runs: dict[str, Path]) -> dict[str, dict[str, int]]:
    """Parameters between ids and encoder, of the models trained and at the size of BERT-base."""
    base = {"layers": 1, "d_model": 768, "heads": 12}
    bert = TokenVocab(size=30_522, bos=0, eos=1, pad=2, sha256="")
    found: dict[str, dict[str, int]] = {}
    for arm, run in runs.items():
        model = load_model(run)
        with torch.device("meta"):
            ours = Byte2Word(
                Byte2WordConfig(input=model.config.input, **base),  # type: ignore[attr-defined]
                ByteVocab() if arm == "Byte2Word" else bert,
                labels=("a", "b"),
            )
        found[arm] = {
            "here": model.embedding_parameters(),  # type: ignore[attr-defined,operator]
            "bert_base": ours.embedding_parameters(),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "byte2word")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    typos = json.loads((options.data / "typos.json").read_text())
    masked: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    spam: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    runs: dict[str, Path] = {}
    for seed in range(options.seeds):
        for arm, recipe in ARMS.items():
            more = {"runs": options.runs, "more": QUICK}
            masked[arm].append(train(recipe, seed, options.seconds, read=filled, **more))  # type: ignore[arg-type]
            file = spam_recipe(recipe, options.data, options.runs)

            def read(run: Path, seconds: float) -> dict[str, float]:
                return judged(run, options.data, typos)

            name = f"{recipe}-spam"
            spam[arm].append(
                train(str(file), seed, options.seconds / 2, name=name, read=read, **more)  # type: ignore[arg-type]
            )
            runs[arm] = options.runs / f"{recipe}-{options.seconds:g}s-seed{seed}"
            print(arm, seed, masked[arm][-1], spam[arm][-1], flush=True)
        result = {
            "seconds": {"masked words": options.seconds, "spam": options.seconds / 2},
            "words_with_typos": changed_words(options.data, typos),
            "embedding_parameters": (counted := embeddings(runs)),
            "embedding_share": {
                size: counted["Byte2Word"][size] / counted["subword twin"][size]
                for size in ("here", "bert_base")
            },
            "masked": masked,
            "spam": spam,
        }
        store("byte2word", result, table_of(masked, spam))


def table_of(
    masked: dict[str, list[dict[str, float]]], spam: dict[str, list[dict[str, float]]]
) -> list[list[object]]:
    """Means and ranges over seeds."""

    def cell(values: list[float], factor: float, digits: int) -> str:
        scaled = [factor * value for value in values]
        low, high = min(scaled), max(scaled)
        return f"{statistics.mean(scaled):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    kinds = list(next(iter(spam.values()))[0])
    header = ["model", "bits per masked byte", "masked words right, %", "kB per CPU second"]
    table: list[list[object]] = [[*header, *(f"spam, {kind}, %" for kind in kinds)]]
    for arm in masked:
        row: list[object] = [arm]
        for name, factor, digits in (
            ("bits_per_masked_byte", 1.0, 3),
            ("word_accuracy", 100.0, 2),
            ("bytes_per_second", 1e-3, 1),
        ):
            row.append(cell([run[name] for run in masked[arm]], factor, digits))
        row += [cell([run[kind] for run in spam[arm]], 100.0, 1) for kind in kinds]
        table.append(row)
    return table


if __name__ == "__main__":
    main()
