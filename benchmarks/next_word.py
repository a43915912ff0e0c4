"""Next-word accuracy of pooled words, flat bytes and subwords, at the same bytes of context.

    python -m benchmarks.next_word [--seconds 40] [--seeds 3] [--runs DIR]

Re-tests the claim of Learn Your Tokens (Thawani et al. 2023): pooling the bytes of words improves
the prediction of whole next words over bytes and subwords, most of all of rare words and numbers.
Three arms train on the bundled prose for the same CPU seconds on one thread, with the same
optimizer, bytes per step and bytes of context; the subwords are those of `tokenizers/words-4k`,
trained on the same text. Then every arm reads the same windows of held-out text and writes each
word greedily: a word is right if all its bytes are, the space in front included, and the next byte
written would start another word, so no arm gets a word right by running on. Only words with at
least 512 bytes of context in their window count, and only those with a letter or a digit.
"""

import argparse
import math
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import ROOT, store
from benchmarks.equal_compute import train
from bytelm.arch.base import CausalModel
from bytelm.data import Batch
from bytelm.loading import load_model
from bytelm.objectives.masked_words import words_of
from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.vocabulary import token_vocab
from bytelm.vocab import ByteVocab

WINDOW, CONTEXT, HELDOUT = 1023, 512, 49_152  # bytes
RARE = 10  # a word with fewer occurrences in the training text is rare
TOKENIZER = "tokenizers/words-4k"
STEP = ("train.batch_bytes=1024", "train.context_bytes=1024")
QUICK = ("evaluate.bytes=65536", "evaluate.final=false")
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pooled words": ("wordpool-tiny", ()),
    "flat bytes": ("transformer-tiny", STEP),
    "subwords": ("transformer-tiny", (*STEP, f"data.tokenizer={TOKENIZER}")),
}
KINDS = ("all", "rare", "unseen", "numbers")


@dataclass(frozen=True)
class Word:
    """A word of a window: its bytes begin at `at`."""

    at: int
    text: bytes

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def words_in(window: bytes) -> list[Word]:
    """All words of a window, in order."""
    found, at = [], 0
    for text in words_of(np.frombuffer(window, np.uint8)):
        found.append(Word(at, text))
        at += len(text)
    return found


def judged(words: Sequence[Word]) -> list[int]:
    """The numbers of the words that count: enough context, a letter or digit, not cut off."""
    return [
        k
        for k, word in enumerate(words[:-1])
        if word.at >= CONTEXT and re.search(rb"\w", word.text, re.ASCII)
    ]


def starts_word(text: bytes, more: bytes) -> bool:
    """Whether a word starts at the first byte that follows the text."""
    both = words_of(np.frombuffer(text[-64:] + more[:1], np.uint8))
    return len(both[-1]) == 1


@torch.no_grad()
def bytes_right(model: CausalModel, window: bytes) -> tuple[set[int], float]:
    """Which judged words a byte model writes, all at once: greedy writing of a word is right if the
    first choice after each of its prefixes is; and the nats of all bytes from CONTEXT on."""
    words = words_in(window)
    ids = torch.tensor([[ByteVocab().bos, *window]])
    logits = model(Batch(ids=ids)).logits[0]
    choice = logits.argmax(-1).tolist()  # [t] is after t bytes
    nats = F.cross_entropy(logits[CONTEXT:-1], ids[0, CONTEXT + 1 :], reduction="sum")
    found = set()
    for k in judged(words):
        word = words[k]
        if all(choice[t] == window[t] for t in range(word.at, word.end)):
            after = choice[word.end]
            if after >= 256 or starts_word(window[: word.end], bytes([after])):
                found.add(k)
    return found, float(nats)


@torch.no_grad()
def tokens_right(model: CausalModel, window: bytes, bpe: BinaryBPE) -> tuple[set[int], float]:
    """The same for a subword model. Its words may be spelled by other tokens than the tokenizer's:
    where the first choice is another one that fits, the rest is written token by token."""
    words, vocab, table = words_in(window), token_vocab(bpe), bpe.token_bytes
    pieces = [bpe.encode(word.text).tolist() for word in words]
    tokens = [token for word in pieces for token in word]
    first = np.cumsum([0, *map(len, pieces)]).tolist()
    ids = torch.tensor([[vocab.bos, *tokens]])
    logits = model(Batch(ids=ids)).logits[0]
    begins = np.cumsum([0, *(len(table[token] or b"") for token in tokens)])[:-1]
    later = torch.from_numpy(begins >= CONTEXT)
    nats = F.cross_entropy(logits[:-1][later], ids[0, 1:][later], reduction="sum")
    found = set()
    for k in judged(words):
        word, place, written = words[k], first[k], b""
        choice = int(logits[place].argmax())
        while choice == tokens[place] and len(written) < len(word.text):
            written += table[choice] or b""
            place += 1
            choice = int(logits[place].argmax())
        if len(written) < len(word.text):
            choice, written = spell(model, ids[:, : place + 1], choice, written, word.text, table)
        after = table[choice] or b""
        if written == word.text and (not after or starts_word(window[: word.end], after)):
            found.add(k)
    return found, float(nats)


def spell(
    model: CausalModel,
    ids: Tensor,
    choice: int,
    written: bytes,
    wanted: bytes,
    table: Sequence[bytes | None],
) -> tuple[int, bytes]:
    """Write on from `choice` while it fits: -> (the first choice that is not written, all)."""
    while (piece := table[choice]) and wanted.startswith(written + piece):
        written += piece
        ids = torch.cat((ids, torch.tensor([[choice]])), dim=1)
        choice = int(model(Batch(ids=ids)).logits[0, -1].argmax())
    return choice, written


def accuracies(run: Path, tokenizer: BinaryBPE | None, counts: Counter[bytes]) -> dict[str, Any]:
    """`accuracy`: words of each kind in the held-out text and how many are right; and the
    `bits_per_byte` of the same halves of windows."""
    model, right, total = load_model(run), Counter[str](), Counter[str]()
    nats, size = 0.0, 0
    assert isinstance(model, CausalModel)
    text = (ROOT / "data/prose/heldout.txt").read_bytes()[:HELDOUT]
    for begin in range(0, len(text) - WINDOW, CONTEXT):
        window = text[begin : begin + WINDOW]
        if tokenizer is None:
            found, more = bytes_right(model, window)
        else:
            found, more = tokens_right(model, window, tokenizer)
        nats, size = nats + more, size + len(window) - CONTEXT
        words = words_in(window)
        for k in judged(words):
            for kind in kinds_of(words[k].text, counts):
                total[kind] += 1
                right[kind] += k in found
    words_found = {kind: {"words": total[kind], "right": right[kind]} for kind in KINDS}
    return {"bits_per_byte": nats / math.log(2) / size, "accuracy": words_found}


def kinds_of(word: bytes, counts: Counter[bytes]) -> list[str]:
    """What a word counts as."""
    bare, found = word.strip(), ["all"]
    if counts[bare] < RARE:
        found.append("rare")
    if not counts[bare]:
        found.append("unseen")
    if bare.isdigit():
        found.append("numbers")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "next-word")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    counts = Counter(re.findall(rb"[^\W\d]+|\d+", (ROOT / "data/prose/train.txt").read_bytes()))
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm, (recipe, more) in ARMS.items():
            name = f"{arm.replace(' ', '-')}"
            figures: dict[str, Any] = dict(
                train(recipe, seed, options.seconds, options.runs, name=name, more=(*more, *QUICK))
            )
            run = options.runs / f"{name}-{options.seconds:g}s-seed{seed}"
            bpe = BinaryBPE.load(run) if arm == "subwords" else None
            figures |= accuracies(run, bpe, counts)
            found[arm].append({"seed": seed, **figures})
            print(arm, found[arm][-1], flush=True)
        store("next_word", {"seconds": options.seconds, "runs": found}, table_of(found))


def table_of(found: dict[str, list[dict[str, Any]]]) -> list[list[object]]:
    """Mean and range over seeds of each accuracy, in percent."""
    first = next(iter(found.values()))[0]["accuracy"]
    names = [f"{kind} ({first[kind]['words']:,} words), %" for kind in KINDS]
    table: list[list[object]] = [["arm", "bits per byte", "kB per CPU second", *names]]
    for arm, runs in found.items():
        bits = statistics.mean(run["bits_per_byte"] for run in runs)
        speed = statistics.mean(run["bytes_per_second"] for run in runs) / 1000
        cells = []
        for kind in KINDS:
            shares = [
                100 * run["accuracy"][kind]["right"] / max(run["accuracy"][kind]["words"], 1)
                for run in runs
            ]
            cells.append(f"{statistics.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")
        table.append([arm, f"{bits:.3f}", f"{speed:.1f}", *cells])
    return table


if __name__ == "__main__":
    main()
