"""Sampling order as a pure function: a keyed permutation and keyed draws, vectorised in numpy.

An epoch's order is a generalised Feistel network on a grid of about sqrt(n) x sqrt(n), with cycle
walking for the few cells beyond n (Black and Rogaway, "Ciphers with arbitrary finite domains",
2002). No table and no generator state exist, so any position of any epoch is found in O(1),
identically on every rank, and resuming needs one integer. Four rounds of a 64-bit finaliser are
for mixing, not secrecy.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]

ORDER = "feistel-4"  # part of every fingerprint: change it when the order changes
_ROUNDS = 4


def keys(*parts: object, count: int) -> Words:
    """`count` 64-bit keys, a hash of `parts` (anything with a stable `repr`)."""
    seed = repr(parts).encode()
    words = [hashlib.blake2b(seed, digest_size=8, salt=b"%d" % i).digest() for i in range(count)]
    return np.frombuffer(b"".join(words), dtype="<u8").astype(np.uint64)


def mix(values: Words) -> Words:
    """The finaliser of splitmix64 (Steele et al. 2014): each input bit reaches each output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(indices: Integers, *, size: int, key: tuple[object, ...]) -> Integers:
    """Where the permutation of range(size) named by `key` sends each index.

    >>> sorted(permute(np.arange(5), size=5, key=(0, 0)).tolist())
    [0, 1, 2, 3, 4]
    """
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise IndexError(f"indices must be in range({size})")
    rows = math.isqrt(max(size - 1, 1)) + 1
    columns = -(-size // rows)  # rows * columns is the smallest grid that holds all indices
    round_keys = keys("order", *key, count=_ROUNDS)
    values = _shuffle(indices.astype(np.uint64), grid=(rows, columns), round_keys=round_keys)
    while (outside := np.flatnonzero(values >= size)).size:
        values[outside] = _shuffle(values[outside], grid=(rows, columns), round_keys=round_keys)
    return values.astype(np.int64)


def _shuffle(values: Words, *, grid: tuple[int, int], round_keys: Words) -> Words:
    """A bijection of range(rows * columns): each half in turn moves by a hash of the other."""
    rows, columns = np.uint64(grid[0]), np.uint64(grid[1])
    row, column = np.divmod(values, columns)
    for i, key in enumerate(round_keys):
        if i % 2:
            column = (column + mix(row ^ key) % columns) % columns
        else:
            row = (row + mix(column ^ key) % rows) % rows
    return row * columns + column


class Draws:
    """Independent random numbers named by (key, sample, counter); nothing is ever consumed.

    >>> draws = Draws("noise", 7)
    >>> draws.uniform(3, 0) == draws.uniform(3, 0) != draws.uniform(3, 1)
    True
    """

    def __init__(self, *key: object):
        self._key = keys("draws", *key, count=1)

    def word(self, sample: int, counter: int) -> int:
        """64 random bits."""
        named = mix(mix(self._key + np.uint64(sample)) ^ np.uint64(counter))
        return int(named[0])

    def uniform(self, sample: int, counter: int) -> float:
        """A number in [0, 1), 53 bits."""
        return (self.word(sample, counter) >> 11) * 2.0**-53

    def integer(self, sample: int, counter: int, *, below: int) -> int:
        """A number in range(below); the bias is below 2^-64 * below."""
        return self.word(sample, counter) * below >> 64
