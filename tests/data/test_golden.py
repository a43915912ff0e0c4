"""What moving code must not change: built corpora, the order of windows, the ids of the tokenizers.

The figures in golden.json are those of the tree before `data/` and `tokenizer/` were rearranged;
`python tests/data/test_golden.py` writes them again, which is right only where a format changes on
purpose. Everything is over the bundled samples, named from the repository, so that stored paths are
the same everywhere.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from bytelm.data import Corpus, Windows
from bytelm.tokenizer import BinaryBPE

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.json")
SAMPLES = ("data/prose", "data/executables", "data/scripts")
POLICIES = ("concat", "pack", "document", "bucket")
TOKENIZERS = ("binary-4k", "binary-8k", "binary-16k", "binary-32k", "binary-64k")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def corpora(folder: Path) -> dict[str, object]:
    """Hashes of the files of a corpus built from the samples, and fingerprints of plain files."""
    built = Corpus.build(list(SAMPLES), folder / "corpus")
    description = json.loads((folder / "corpus" / "corpus.json").read_text())
    # documents.parquet has the version of its writer in it; rows are tested in test_build.py
    entries = [entry for entry in description["files"] if entry["file"] != "documents.parquet"]
    return {
        "files": entries,
        "settings": description["settings"],
        "built": built.fingerprint,
        "plain": Corpus.open(["data/prose/train.txt", "data/scripts/*.txt"]).fingerprint,
    }


def windows(folder: Path) -> dict[str, list[str]]:
    """Fingerprint of the order, and a hash of the first rows of the second epoch."""
    corpus = Corpus.open(folder / "corpus")
    found = {}
    for policy in POLICIES:
        order = Windows(corpus, length=512, policy=policy, seed=3)
        rows = order.batch(list(range(8)), epoch=1)
        found[policy] = [order.fingerprint, _sha256(rows.targets.numpy().tobytes())]
    return found


def ids() -> dict[str, dict[str, str]]:
    """Hashes of the ids of one executable and one text, as little-endian uint32."""
    files = ("data/executables/wrapt/manylinux2014_x86_64.so", "data/prose/heldout.txt")
    return {
        name: {
            file: _sha256(bpe.encode(Path(file).read_bytes()).astype("<u4").tobytes())
            for file in files
        }
        for name in TOKENIZERS
        for bpe in [BinaryBPE.load(f"tokenizers/{name}")]
    }


def trained(folder: Path) -> dict[str, str]:
    """Hash of the vocabulary and merges of a small tokenizer trained on the samples (not of its
    file, which may declare special tokens otherwise)."""
    bpe = BinaryBPE.train(["data/prose/train.txt", "data/executables/wrapt"], [600])[600]
    model = json.loads(bpe.save(folder / "bpe").read_bytes())["model"]
    return {"600": _sha256(json.dumps(model, sort_keys=True).encode())}


def figures(folder: Path) -> dict[str, object]:
    """Everything golden.json holds; the working folder must be the repository."""
    return {
        "corpora": corpora(folder),
        "windows": windows(folder),
        "ids": ids(),
        "trained": trained(folder),
    }


def test_figures_are_those_from_before_the_code_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)

    assert figures(tmp_path) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.write_text(json.dumps(figures(Path(temporary)), indent=1) + "\n")
