"""Corpora that broke other trainers, and reference implementations to compare with."""

import random
from collections import Counter

import numpy as np
import pytest


def naive_merges(
    pieces: list[bytes], ids: int, min_frequency: int = 2, cap: int | None = None
) -> list[tuple[int, int]]:
    """BPE as defined: count all pairs afresh for every merge."""
    words, size, merges = [list(piece) for piece in pieces], [1] * 256, []
    while len(size) < ids:
        counts = Counter(
            (a, b)
            for word in words
            for a, b in zip(word, word[1:], strict=False)
            if cap is None or size[a] + size[b] <= cap
        )
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[pair] < max(min_frequency, 1):
            break
        merges.append(pair)
        words = [replaced(word, pair, len(size)) for word in words]
        size.append(size[pair[0]] + size[pair[1]])
    return merges


def naive_encode(merges: np.ndarray, data: bytes) -> list[int]:
    """Apply the merges one after the other."""
    word = list(data)
    for new, (a, b) in enumerate(merges.tolist(), 256):
        word = replaced(word, (a, b), new)
    return word


def replaced(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def executable_like(seed: int, size: int) -> bytes:
    """Zeros, small integers, repeated idioms and strings, as executables have them."""
    r = random.Random(seed)
    idioms = [bytes(r.randrange(256) for _ in range(r.randrange(2, 9))) for _ in range(60)]
    words = [b"error", b"GLIBC_2.17", b"_start", b"\0\0\0\0", b"\x55\x48\x89\xe5"]
    out = bytearray()
    while len(out) < size:
        out += r.choice([r.choice(idioms), r.choice(words), bytes(r.randrange(40)), r.randbytes(3)])
    return bytes(out[:size])


CORPORA = {
    "executable": executable_like(0, 30_000),
    "text": ("Ein Text über Bytes, мир, 世界. The quick brown fox; " * 400).encode(),
    "zeros": bytes(9_000),
    "one byte repeated": b"\xff" * 12_345,
    "random": random.Random(1).randbytes(30_000),
    "overlaps": b"".join(b"a" * n + b"b" * (n % 3) for n in range(1, 150)),
    "two symbols": bytes(random.Random(2).choices([0, 1], k=9_000)),
}


@pytest.fixture(scope="session", params=sorted(CORPORA))
def corpus(request: pytest.FixtureRequest) -> bytes:
    return CORPORA[request.param]
