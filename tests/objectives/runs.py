"""Small labelled collections and pairs, and recipes that train on them in under a second."""

import json
from pathlib import Path

from bytelm.recipe import Recipe

CLASSES = {"digits": b"0123456789", "lower": b"abcdefghij", "upper": b"ABCDEFGHIJ"}
TRAIN = {"steps": 12, "batch_bytes": 192, "context_bytes": 16, "dtype": "float32"}


def documents_of(name: str, *, count: int, first: int = 0) -> list[bytes]:
    """`count` documents of a class, 1 to 30 bytes long, all of its alphabet."""
    alphabet = CLASSES[name]
    return [
        bytes(alphabet[(n * n + k) % 10] for k in range(1 + n * 7 % 30))
        for n in range(first, first + count)
    ]


def write_folders(folder: Path) -> None:
    """DIR/train/CLASS/N and DIR/heldout/CLASS/N, a file per document."""
    for split, first, count in (("train", 0, 12), ("heldout", 50, 5)):
        for name in CLASSES:
            place = folder / split / name
            place.mkdir(parents=True)
            for n, data in enumerate(documents_of(name, count=count, first=first)):
                (place / f"{n:02}.bin").write_bytes(data)


def write_records(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def classifier(folder: Path, *overrides: str) -> Recipe:
    """An encoder over the folders of `write_folders`."""
    tree = {
        "seed": 3,
        "model": {"arch": "encoder", "layers": 1, "d_model": 16, "heads": 2},
        "data": {
            "train": [f"{folder}/train/*/*"],
            "heldout": [f"{folder}/heldout/*/*"],
            "policy": "truncate",
        },
        "objective": {"kind": "classification", "labels": "folder"},
        "optimizer": {"kind": "adamw", "lr": 0.01},
        "train": {**TRAIN, "checkpoint_every": 4},
        "evaluate": {"every": 6, "bytes": 100000},
        "log": {"every": 1},
    }
    return Recipe.from_dict(tree, overrides=overrides)


def reverser(folder: Path, *overrides: str) -> Recipe:
    """An encoder-decoder that learns to reverse short texts."""
    words = [bytes(97 + (n * k + n) % 7 for k in range(n % 6)).decode() for n in range(40)]
    rows = [{"source": word, "target": word[::-1]} for word in words]
    write_records(folder / "train.jsonl", rows[:30])
    write_records(folder / "heldout.jsonl", rows[30:])
    tree = {
        "model": {"arch": "t5", "encoder_layers": 1, "decoder_layers": 1, "d_model": 16}
        | {"heads": 2},
        "data": {
            "train": [f"{folder}/train.jsonl"],
            "heldout": [f"{folder}/heldout.jsonl"],
            "policy": "truncate",
        },
        "objective": {"kind": "seq2seq"},
        "train": TRAIN,
        "evaluate": {"every": 6},
        "log": {"every": 1},
    }
    return Recipe.from_dict(tree, overrides=overrides)
