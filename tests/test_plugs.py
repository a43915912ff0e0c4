"""A package adds an architecture, an objective, a source and a loader: one file and one entry point
each, and everything downstream works, without touching bytelm.

The package is made on the spot, as `pip install` would leave it, and used by the command line in a
process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ARCHITECTURE = '''
"""A bigram model: the next byte from the last one."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import nn

from bytelm.arch.base import ArchConfig, CausalModel, ModelOutput, causal_loss
from bytelm.nn.state import State


class Config(ArchConfig):
    width: int = Field(16, ge=1, description="channels per byte")


@dataclass(frozen=True)
class Nothing(State):
    """What a bigram model remembers: how many rows there are."""

    rows: torch.Tensor


class Bigram(CausalModel[Nothing]):
    """Looks one byte back."""

    Config = Config

    def __init__(self, config, vocab):
        super().__init__(config, vocab)
        self.table = nn.Embedding(vocab.size, config.width)
        self.head = nn.Linear(config.width, vocab.size)

    def forward(self, batch):
        logits = self.head(self.table(batch.ids)).float()
        return ModelOutput(logits=logits, loss=causal_loss(logits, batch.targets))

    def flops_per_byte(self, context_bytes):
        return 2.0 * self.config.width * self.vocab.size

    def init_state(self, batch_size):
        return Nothing(torch.zeros(batch_size))

    def prefill(self, ids, lengths, state):
        last = ids.gather(1, lengths[:, None] - 1)[:, 0]
        return self.step(last, state)

    def step(self, ids, state):
        return self.head(self.table(ids)).float(), state
'''

OBJECTIVE = '''
"""Predicts a share of the positions only, and is judged by how many bytes it gets right."""

from dataclasses import replace

from pydantic import Field

from bytelm.data.windows import causal_batch
from bytelm.objectives import Objective, ObjectiveConfig


class Config(ObjectiveConfig):
    every: int = Field(2, ge=1, description="one position of so many is predicted")


class Sparse(Objective):
    """Every n-th byte."""

    Config = Config
    better = "higher"
    specials = ("bos", "eos", "sep")

    def batch(self, windows, samples):
        batch = causal_batch(windows.rows(samples))
        targets = batch.targets.clone()
        for offset in range(1, self.config.every):
            targets[:, offset :: self.config.every] = -100
        return replace(batch, targets=targets)

    def measure(self, batch, output):
        right = output.logits.argmax(-1).cpu() == batch.targets
        return {"right": float(right.sum()), "all": float(self.count(batch))}

    def figures(self, sums):
        return {"hits": sums["right"] / sums["all"]}
'''

SOURCE = '''
"""Files that hold every bit inverted."""

from dataclasses import dataclass
from pathlib import Path

from bytelm.data.sources import Document, OneFile


@dataclass(frozen=True)
class Inverted(OneFile):
    path: Path
    suffixes = (".inverted",)

    @classmethod
    def open(cls, spec, *, reading):
        return cls(Path(spec))

    def __iter__(self):
        data = bytes(255 - byte for byte in self.path.read_bytes())
        yield Document(data, {"source": str(self.path)})
'''

LOADER = '''
"""Text files whose n-grams are a model."""

from bytelm.lm.ngram import NgramLM


class NgramLoader:
    what = "a text to count n-grams in"

    @staticmethod
    def accepts(path):
        return path.suffix == ".counts"

    @staticmethod
    def load(path, *, window=3):
        return NgramLM.train([path.read_bytes()], order=window)
'''

PARTS = {
    "architectures": ("bigram", ARCHITECTURE, "Bigram"),
    "objectives": ("sparse", OBJECTIVE, "Sparse"),
    "sources": ("inverted", SOURCE, "Inverted"),
    "loaders": ("counts", LOADER, "NgramLoader"),
}
TEXT = b"abcabcabd. " * 400

RECIPE = """
[model]
arch = "bigram"
width = 8

[data]
train = ["train"]
heldout = ["train"]

[objective]
kind = "sparse"
every = 3

[train]
steps = 60
batch_bytes = 512
context_bytes = 64

[evaluate]
every = 30
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data, a recipe, and site/, which holds the installed package."""
    folder = tmp_path_factory.mktemp("plugs")
    info = folder / "site" / "plugs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugs\nVersion: 1.0\n")
    groups = []
    for group, (name, text, attribute) in PARTS.items():
        (folder / "site" / f"plug_{name}.py").write_text(text)
        groups.append(f"[bytelm.{group}]\n{name} = plug_{name}:{attribute}\n")
    (info / "entry_points.txt").write_text("\n".join(groups))
    (folder / "text.inverted").write_bytes(bytes(255 - byte for byte in TEXT))
    (folder / "words.counts").write_bytes(TEXT)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def bytelm(place):
    """Calls the command line where the package is installed; -> its standard output."""

    def call(*arguments: str) -> str:
        path = os.pathsep.join([str(place / "site"), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-m", "bytelm", *arguments],
            cwd=place,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def run(place, bytelm) -> Path:
    """Trained through all of them: data through the source, the model with the objective."""
    bytelm("data", "build", "text.inverted", "--out", "train")
    bytelm("train", "recipe.toml", "--run", "run")
    return place / "run"


def test_the_source_reads_what_a_corpus_is_built_from(place, run):
    shards = [file for file in (place / "train").iterdir() if file.read_bytes() == TEXT]
    assert shards, "the shard holds the text as it was before it was inverted"


def test_architecture_and_objective_train_together(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    hits = [row["heldout_hits"] for row in rows if "heldout_hits" in row]
    assert len(hits) == 2 and hits[-1] > 0.5
    description = json.loads((run / "config.json").read_text())
    assert description["arch"] == "bigram" and description["specials"] == ["bos", "eos", "sep"]


def test_the_run_is_used_like_any_other(bytelm, run):
    report = json.loads(bytelm("eval", "run", "text.inverted", "--json"))
    assert report["bits_per_byte"] < 8 and report["bytes"] == len(TEXT)
    assert len(bytelm("generate", "run", "--prompt", "ab", "--max-bytes", "5", "--utf8")) <= 5


def test_the_loader_opens_a_model_and_takes_part_in_an_ensemble(bytelm, run):
    arguments = ["next", "words.counts", "--prompt", "abcab", "--top", "1", "--json"]
    (first,) = json.loads(bytelm(*arguments, "--window", "2"))["next"]
    assert first["outcome"] == ord("c")
    assert bytelm("next", "words.counts", "--model", "run", "--prompt", "ab", "--top", "1")


def test_settings_of_new_parts_are_shown(bytelm):
    assert "width: integer >= 1 (default 16)" in bytelm("models", "bigram")
    assert "one position of so many is predicted" in bytelm("models", "sparse")
