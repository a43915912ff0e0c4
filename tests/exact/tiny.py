"""Tiny tokenizers and token LMs whose every probability can be enumerated.

The reference never speaks of covers: it lists all token strings of a finite-horizon model, adds up
their mass by decoded text, and sums over the texts that start with a prefix.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np

from bytelm.exact import TabularLM
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder, GreedyEncoder, PlainBPE
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

HORIZON = 5


def random_lm(vocab: Sequence[bytes | None], *, horizon: int = HORIZON, seed: int = 0) -> TabularLM:
    """p(. | last three tokens) random; the end is certain after `horizon` tokens."""
    vocab = [*vocab, None]
    end = len(vocab) - 1

    def distribution(history: tuple[int, ...]) -> np.ndarray:
        if len(history) >= horizon:
            return np.eye(len(vocab))[end]
        key = zlib.crc32(repr((seed, len(history), history[-3:])).encode())
        p = np.random.default_rng(key).exponential(size=len(vocab)) ** 2
        p[[i for i, data in enumerate(vocab[:-1]) if data is None]] = 0
        return p / p.sum()

    return TabularLM(distribution, vocab, eos_ids={end})


def texts(lm: TabularLM, allowed: Callable[[tuple[int, ...]], bool] | None = None) -> dict:
    """Mass of every token string of the model by decoded text; `allowed` filters complete ones."""
    (end,) = lm.eos_ids
    mass: dict[bytes, float] = defaultdict(float)
    stack: list[tuple[tuple[int, ...], bytes, float]] = [((), b"", 1.0)]
    while stack:
        history, text, weight = stack.pop()
        p = np.asarray(lm.distribution(history))
        if p[end] and (allowed is None or allowed(history)):
            mass[text] += weight * p[end]
        for token in np.flatnonzero(p):
            if token != end:
                stack.append(
                    ((*history, int(token)), text + lm.vocab_bytes[token], weight * p[token])
                )
    return mass


def prefix_mass(mass: dict[bytes, float], prefix: bytes) -> float:
    return sum(p for text, p in mass.items() if text.startswith(prefix))


def bpe() -> tuple[list[bytes], Encoder]:
    """Merges ab, abc, bc, ca, aa over the alphabet abc."""
    merges = [(b"a", b"b"), (b"ab", b"c"), (b"b", b"c"), (b"c", b"a"), (b"a", b"a")]
    vocab = [b"a", b"b", b"c", *(a + b for a, b in merges)]
    ranks = {pair: i for i, pair in enumerate(merges)}
    pairs = BytePairs({data: i for i, data in enumerate(vocab)}, lambda a, b: ranks.get((a, b)))
    return vocab, PlainBPE(pairs)


def greedy() -> tuple[list[bytes], Encoder]:
    """Longest match: knowing that neighbours fit is not enough (a·b and b·c but not a·b·c)."""
    vocab = [b"a", b"b", b"c", b"ab", b"abc", b"bca", b"cc"]
    return vocab, GreedyEncoder(PrefixTrie(vocab))


UNIGRAM = {
    b"a": -1.0, b"b": -1.2, b"c": -1.5, b"ab": -1.7, b"abc": -3.0, b"bca": -3.1, b"cc": -2.2,
    b"ca": -2.4,
}  # fmt: skip


def viterbi(scores: dict[bytes, float], data: bytes) -> list[int]:
    """The best segmentation; ties go to the one whose last token is longer."""
    names = list(scores)
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(data) + 1):
        found = [
            (
                best[start][0] + scores[data[start:end]],
                best[start][1] + [names.index(data[start:end])],
            )
            for start in range(end)
            if data[start:end] in scores
        ]
        best.append(max(found, key=lambda item: item[0], default=(-math.inf, [])))
    return best[-1][1]


def unigram() -> tuple[list[bytes], Encoder]:
    vocab = list(UNIGRAM)
    encode = lambda data: viterbi(UNIGRAM, data)  # noqa: E731
    return vocab, CallableEncoder(encode, vocab, prefix_closed=True)


TOKENIZERS = {"bpe": bpe, "greedy": greedy, "unigram": unigram}


def strings(alphabet: bytes, longest: int) -> Iterable[bytes]:
    """All byte strings over the alphabet up to a length."""
    for length in range(longest + 1):
        for letters in product(alphabet, repeat=length):
            yield bytes(letters)


def canonical_prefixes(encoder: Encoder, alphabet: bytes, longest: int) -> set[tuple[int, ...]]:
    """Prefixes of encodings of all strings up to a length."""
    found = set()
    for text in strings(alphabet, longest):
        ids = tuple(encoder.encode(text))
        found.update(ids[:n] for n in range(len(ids) + 1))
    return found
