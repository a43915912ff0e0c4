"""Formats and languages told apart: a trained encoder beside naive Bayes on byte histograms.

    bytelm train encoder-tiny --run runs/encoder-tiny
    python -m benchmarks.classify_bundled runs/encoder-tiny [runs/encoder-tiny-2 ...]

Held out are the documents of `data/formats/heldout.parquet` (`benchmarks/fetch/make_formats.py`):
texts of 19 languages, from the last fifth of each file, and whole executables of packages that are
not in the training data. Both methods read the first `window` bytes of a document, which is what
the encoder was trained for, and learn from the same training documents. Two rows are harder
questions that nobody was trained for: a text's first 32 bytes alone; and sections of `window` bytes
from anywhere in the held-out executables (those of one repeated byte left out), which are mostly
machine code and tables.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from benchmarks.common import store
from bytelm.loading import load_classifier
from bytelm.run import Run

FORMATS = Path(__file__).parents[1] / "data" / "formats"
EXECUTABLES = ("elf", "mach-o", "pe", "wasm")
SMOOTHING = 1.0  # added to every byte's count in every class

Documents = list[tuple[str, bytes]]


class NaiveBayes:
    """Bytes drawn independently from their class's histogram; classes equally probable."""

    def __init__(self, documents: Documents):
        self.labels = sorted({label for label, _ in documents})
        counts = np.full((len(self.labels), 256), SMOOTHING)
        for label, text in documents:
            counts[self.labels.index(label)] += histogram(text)
        self._logprobs = np.log(counts / counts.sum(axis=1, keepdims=True))

    def predict(self, texts: list[bytes]) -> list[str]:
        """The most probable label of each text."""
        scores = np.array([histogram(text) for text in texts]) @ self._logprobs.T
        return [self.labels[i] for i in scores.argmax(axis=1)]


def histogram(text: bytes) -> np.ndarray:
    """How often each byte value occurs."""
    return np.bincount(np.frombuffer(text, np.uint8), minlength=256)


def read(name: str) -> Documents:
    """(label, bytes) of each document of `data/formats/NAME.parquet`."""
    table = parquet.read_table(FORMATS / f"{name}.parquet", columns=["label", "text"])
    return [(row["label"], row["text"]) for row in table.to_pylist()]


def groups(window: int) -> dict[str, Documents]:
    """The held-out documents as they are counted, cut to what is read of each."""
    heldout = read("heldout")
    executables = [(label, text) for label, text in heldout if label in EXECUTABLES]
    texts = [(label, text) for label, text in heldout if label not in EXECUTABLES]
    sections = [
        (label, section)
        for label, text in executables
        for start in range(0, len(text), window)
        if len(set(section := text[start : start + window])) > 1
    ]
    chosen = {
        "all held-out documents": heldout,
        "texts (19 languages)": texts,
        "texts, 32 bytes of each": [(label, text[:32]) for label, text in texts],
        "executables (4 formats)": executables,
        "sections of the executables": sections,
    }
    return {name: [(label, t[:window]) for label, t in docs] for name, docs in chosen.items()}


def accuracy(documents: Documents, found: list[str]) -> float:
    """Share of documents with the right label."""
    pairs = zip(documents, found, strict=True)
    return float(np.mean([label == guess for (label, _), guess in pairs]))


def measure(runs: list[Path]) -> dict[str, Any]:
    """Documents, and accuracy of naive Bayes and of each run, by group."""
    classifiers = {run: load_classifier(run) for run in runs}
    [window] = {classifier.window for classifier in classifiers.values()}
    bayes = NaiveBayes(read("train"))
    seeds = [Run(run).recipe().seed for run in runs]
    result: dict[str, Any] = {"window": window, "seeds": seeds, "groups": {}}
    for name, documents in groups(window).items():
        texts = [text for _, text in documents]
        found = []
        for classifier in classifiers.values():
            best = classifier.predict(texts).argmax(dim=1).tolist()
            found.append(accuracy(documents, [classifier.labels[i] for i in best]))
        result["groups"][name] = {
            "documents": len(documents),
            "naive_bayes": accuracy(documents, bayes.predict(texts)),
            "encoder": found,
        }
    return result


def main() -> None:
    """Measure the given runs and write benchmarks/results/classify_bundled.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="runs of models/encoder-tiny.toml")
    result = measure(parser.parse_args().runs)
    seeds = ", ".join(map(str, result["seeds"]))
    rows: list[list[object]] = [
        ["held out", "documents", "naive Bayes", f"encoder-tiny, seed {seeds}"]
    ]
    for name, group in result["groups"].items():
        encoder = ", ".join(f"{share:.1%}" for share in group["encoder"])
        rows.append([name, group["documents"], f"{group['naive_bayes']:.1%}", encoder])
    store("classify_bundled", result, rows)


if __name__ == "__main__":
    main()
