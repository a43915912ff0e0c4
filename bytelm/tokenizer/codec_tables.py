"""The tables the compiled codec reads: which pairs merge, and the longest token at a place.

All are made to stay in the second-level cache, which decides the speed: a bit filter answers most
questions about pairs that do not merge, a table of 32-bit entries the rest (eight bits of the hash
and the token; its parts confirm it), and one 64-bit load of the double-array trie gives the base of
the children, the longest token so far and the byte that led here. A node is told by that byte
alone, which works as no two nodes share a base.
"""

from typing import NamedTuple

import numpy as np

from bytelm.compiled import compiled, inlined

NONE = -1
ID_BITS = 24  # ids of tokens; the same limit as the trainer's
_ID = np.uint64((1 << ID_BITS) - 1)
_BYTE_BITS, _BASE_SHIFT = 9, 33  # a trie entry: base << 33 | longest token << 9 | byte + 1
_BYTE = np.uint64((1 << _BYTE_BITS) - 1)
_LOW = np.uint64(0xFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Tables(NamedTuple):
    """What encoding reads. V internal ids (0-255 the bytes, then the merges in order)."""

    parts: np.ndarray  # (V,) uint64: left part << 32 | right part; a byte is its own part
    filter: np.ndarray  # uint64: a bit for each pair that merges, and few others
    pairs: np.ndarray  # uint32: open addressing, 8 bits of the hash << 24 | merged token; 0: free
    steps: np.ndarray  # (V,) uint64: longest proper prefix that is a token << 32 | bytes
    entry: np.ndarray  # (65536,) uint64: trie entry by the first two bytes
    trie: np.ndarray  # uint64 trie entries; 0: free


def packed(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Two columns of 32 bits as one uint64; -1 becomes 2^32 - 1."""
    return high.astype(np.uint32).astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)


# ---- pairs --------------------------------------------------------------------------------------


@inlined
def _bits(n):
    """The shift that leaves an index into n entries (a power of two) of a 64-bit hash."""
    shift = np.uint64(64)
    while n > 1:
        n >>= 1
        shift -= np.uint64(1)
    return shift


@inlined
def pair_shifts(filter, pairs):
    """What `merged` wants to know about the sizes of the two, computed once."""
    return _bits(64 * len(filter)), _bits(len(pairs))


@inlined
def merged(parts, filter, pairs, shifts, left, right):
    """The token a pair of uint64 ids merges into, or 0."""
    key = left << np.uint64(32) | right
    mixed = key * _MIX
    bit = mixed >> shifts[0]
    if filter[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1) == 0:
        return np.uint64(0)
    at, tag = mixed >> shifts[1], mixed & np.uint64(0xFF)
    while True:
        found = np.uint64(pairs[at])
        token = found & _ID
        if found == 0 or (found >> np.uint64(ID_BITS) == tag and parts[token] == key):
            return token
        at = (at + np.uint64(1)) & np.uint64(len(pairs) - 1)


@compiled
def fill_pairs(parts, filter, pairs):
    """Enters every merge; of two of the same pair the first."""
    shifts = pair_shifts(filter, pairs)
    for token in range(256, len(parts)):
        left, right = parts[token] >> np.uint64(32), parts[token] & _LOW
        if merged(parts, filter, pairs, shifts, left, right) != 0:
            continue
        mixed = parts[token] * _MIX
        bit, at = mixed >> shifts[0], mixed >> shifts[1]
        filter[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
        while pairs[at] != 0:
            at = (at + np.uint64(1)) & np.uint64(len(pairs) - 1)
        pairs[at] = (mixed & np.uint64(0xFF)) << np.uint64(ID_BITS) | np.uint64(token)


def pair_tables(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`filter` with 16 bits or more a merge, `pairs` at most half full."""
    merges = max(len(parts) - 256, 16)
    filter = np.zeros((1 << (16 * merges - 1).bit_length()) // 64, np.uint64)
    pairs = np.zeros(1 << (2 * merges - 1).bit_length(), np.uint32)
    fill_pairs(parts, filter, pairs)
    return filter, pairs


# ---- trie ---------------------------------------------------------------------------------------


@inlined
def longest(entry, trie, data, at):
    """The longest token (uint64) that matches at `at`, which is inside `data`."""
    if at + 1 >= len(data):
        return np.uint64(data[at])
    node = entry[np.int64(data[at]) << 8 | np.int64(data[at + 1])]
    at += 2
    while at < len(data):
        base = node >> np.uint64(_BASE_SHIFT)
        if base == 0:
            break
        byte = np.uint64(data[at])
        child = trie[base + byte]
        if child & _BYTE != byte + np.uint64(1):
            break
        node = child
        at += 1
    return node >> np.uint64(_BYTE_BITS) & _ID


@compiled
def _fits(trie, based, base, children):
    if based[base]:
        return False
    for child in children:
        if trie[base + child] != 0:
            return False
    return True


@compiled
def _place(trie, based, free, children):
    """Where the children of a node go, which it takes; -1 if `trie` is too short."""
    base = max(free - children[0], np.int64(1))
    while base + 256 < len(trie) and not _fits(trie, based, base, children):
        base += 1
    if base + 256 >= len(trie):
        return np.int64(NONE)
    based[base] = True
    for child in children:
        trie[base + child] = child + 1
    return base


@compiled
def build_trie(order, start, text, entry, trie, prefix):
    """Fills the double array from tokens in byte order (`order`); returns the entries used, or -1
    if `trie` is too short. Also sets `prefix`, the longest proper prefix that is a token, or -1.

    One level of a group of tokens with a common beginning becomes one trie node; groups are kept on
    a stack (first, last, depth, slot, longest token so far). The first two levels are `entry`.
    """
    for two in range(65536):
        entry[two] = (two >> 8) << _BYTE_BITS
    stack = np.empty((len(order) + 1, 5), np.int64)
    stack[0] = np.array([0, len(order), 0, 0, NONE])
    based = np.zeros(len(trie), np.bool_)
    pending, used, free = 1, np.int64(1), np.int64(1)
    children, firsts = np.empty(256, np.int64), np.empty(257, np.int64)
    while pending > 0:
        pending -= 1
        first, last, depth, slot, token = stack[pending]
        if first < last and start[order[first] + 1] - start[order[first]] == depth:
            prefix[order[first]] = token
            token = order[first]
            first += 1
        n = 0
        for i in range(first, last):
            byte = np.int64(text[start[order[i]] + depth])
            if n == 0 or children[n - 1] != byte:
                children[n], firsts[n] = byte, i
                n += 1
        firsts[n] = last
        base = np.int64(0)
        if depth >= 2 and n > 0:
            while free < len(trie) and trie[free] != 0:
                free += 1
            base = _place(trie, based, free, children[:n])
            if base == NONE:
                return base
            used = max(used, base + 256)
        node = np.uint64(base) << np.uint64(_BASE_SHIFT) | np.uint64(token) << np.uint64(_BYTE_BITS)
        if depth == 2:
            entry[slot] = node
        elif depth > 2:
            trie[slot] |= node
        for i in range(n):
            child = base + children[i] if depth >= 2 else slot << 8 | children[i]
            stack[pending] = np.array([firsts[i], firsts[i + 1], depth + 1, child, token])
            pending += 1
    return used


def tries(
    order: np.ndarray, start: np.ndarray, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`entry`, `trie` and the longest proper prefixes, from the tokens in byte order."""
    prefix, entry = np.full(len(order), NONE, np.int32), np.zeros(1 << 16, np.uint64)
    size, used = 1 << 12, NONE
    while used == NONE:
        size *= 2
        trie = np.zeros(size, np.uint64)
        used = build_trie(order, start, text, entry, trie, prefix)
    return entry, trie[:used].copy(), prefix
