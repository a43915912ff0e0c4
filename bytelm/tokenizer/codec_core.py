"""The compiled core of the codec: exact BPE encoding in linear time on ordinary data.

Encoding follows from one fact: a token sequence is the BPE encoding of its bytes exactly if every
two neighbours are (the pair's bytes encode to that pair). So the encoder walks from left to right,
takes the longest token that matches, falls back to the token's longest prefix that is a token when
the pair test fails, and steps back over a token when nothing fits; an end that failed once is never
tried again. Longest matches come from a double-array trie entered through a table of the first two
bytes; verdicts of the pair test from a small cache. This needs ids in merge order and every token
reachable, which `all_reachable` checks; `encode_by_rank`, the textbook method with a heap, serves
every other vocabulary (and, in the tests, as the reference).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from bytelm.tokenizer.borrow import borrowed, store8

NONE = -1
SPECIAL, UNKNOWN = -1, -2  # ids that are no bytes
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Tables(NamedTuple):
    """What encoding reads. V internal ids (0-255 the bytes, then the merges in order)."""

    left: np.ndarray  # (V,) int32: parts; a byte is its own part
    right: np.ndarray
    length: np.ndarray  # (V,) int32: bytes of each token
    start: np.ndarray  # (V+1,) int64: where its bytes are in `text`
    text: np.ndarray  # uint8
    prefix: np.ndarray  # (V,) int32: longest proper prefix that is a token, or -1
    pair_key: np.ndarray  # open addressing: left << 32 | right, or -1
    pair_id: np.ndarray  # int32: the token the pair merges into
    entry: np.ndarray  # (65536,) uint64: trie slot << 32 | longest token, by the first two bytes
    trie: np.ndarray  # (S,) uint64: parent slot << 32 | base of the children (0: none)
    best: np.ndarray  # (S,) int32: longest token that the path to this slot holds
    verdict: np.ndarray  # (2^k,) uint64: pair << 1 | allowed


# ---- pairs --------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _hash(key, size):
    """A slot of a table of `size` (a power of two) entries."""
    mixed = np.uint64(key) * _MIX
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))


@njit(cache=True, nogil=True)
def _put_pair(pair_key, pair_id, left, right, token):
    key = np.int64(left) << 32 | np.int64(right)
    at = _hash(key, len(pair_key))
    while pair_key[at] != NONE and pair_key[at] != key:
        at = (at + 1) & (len(pair_key) - 1)
    if pair_key[at] == NONE:
        pair_key[at] = key
        pair_id[at] = token


@njit(cache=True, nogil=True)
def _get_pair(pair_key, pair_id, left, right):
    key = np.int64(left) << 32 | np.int64(right)
    at = _hash(key, len(pair_key))
    while pair_key[at] != key:
        if pair_key[at] == NONE:
            return NONE
        at = (at + 1) & (len(pair_key) - 1)
    return np.int64(pair_id[at])


@njit(cache=True, nogil=True)
def _compatible(t, x, y):
    """Whether BPE leaves the boundary between tokens x and y alone.

    x was built up along its right edge, y along its left edge. While (x', y') stood side by side,
    before either was absorbed into the next larger part, they would have merged if that merge came
    earlier than both absorptions; of equal merges the one further left goes first, so a merge equal
    to the one absorbing y' breaks the boundary and one equal to that absorbing x' does not.
    """
    absorbs_x = absorbs_y = np.int64(1) << 40
    while True:
        merged = _get_pair(t.pair_key, t.pair_id, x, y)
        if merged != NONE and merged < absorbs_x and merged <= absorbs_y:
            return False
        if x < 256 and y < 256:
            return True
        if x >= y:
            absorbs_x, x = x, np.int64(t.right[x])
        else:
            absorbs_y, y = y, np.int64(t.left[y])


# ---- building -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def spell(left, right, start, text):
    """Writes every token's bytes to `text`, the parts before the whole."""
    for token in range(len(left)):
        at = start[token]
        if token < 256:
            text[at] = token
        else:
            for part in (left[token], right[token]):
                for i in range(start[part], start[part + 1]):
                    text[at] = text[i]
                    at += 1


@njit(cache=True, nogil=True)
def fill_pairs(left, right, pair_key, pair_id):
    pair_key[:] = NONE
    for token in range(256, len(left)):
        _put_pair(pair_key, pair_id, left[token], right[token], token)


@njit(cache=True, nogil=True)
def _fits(trie, base, children, n):
    for i in range(n):
        if trie[base + children[i]] != 0:
            return False
    return True


@njit(cache=True, nogil=True)
def build_trie(order, start, text, entry, trie, best, prefix):
    """Fills the double array from tokens in byte order (`order`); returns the slots used, or -1 if
    `trie` is too short. Also sets `prefix` and `entry`.

    One level of a group of tokens with a common beginning becomes one trie node; groups wait on a
    stack (first, last, depth, slot, best token so far).
    """
    for b in range(65536):
        entry[b] = np.uint64(b >> 8)
    stack = np.empty((len(order) + 1, 5), np.int64)
    stack[0] = np.array([0, len(order), 0, 0, NONE])
    waiting, used, free = 1, np.int64(1), np.int64(1)
    children, firsts = np.empty(256, np.int64), np.empty(257, np.int64)
    while waiting > 0:
        waiting -= 1
        first, last, depth, slot, longest = stack[waiting]
        if first < last and start[order[first] + 1] - start[order[first]] == depth:
            token = order[first]
            prefix[token] = longest
            longest = np.int64(token)
            first += 1
        if depth >= 2:
            best[slot] = longest
            if depth == 2:
                at = start[order[first - 1 if first == last else first]]
                two = np.int64(text[at]) << 8 | np.int64(text[at + 1])
                entry[two] = np.uint64(slot) << np.uint64(32) | np.uint64(longest)
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
            base = max(free - children[0], np.int64(1))
            while base + 256 < len(trie) and not _fits(trie, base, children, n):
                base += 1
            if base + 256 >= len(trie):
                return np.int64(-1)
            trie[slot] |= np.uint64(base)
        for i in range(n):
            child = base + children[i]
            if depth == 0:
                child = np.int64(0)
            elif depth == 1:  # the 2-byte nodes lie in front; `entry` leads to them
                while trie[free] != 0:
                    free += 1
                child = free
                if child + 256 >= len(trie):
                    return np.int64(-1)
                trie[child] = np.uint64(1) << np.uint64(63)
            else:
                trie[child] = np.uint64(slot) << np.uint64(32)
            used = max(used, child + 257)
            stack[waiting] = np.array([firsts[i], firsts[i + 1], depth + 1, child, longest])
            waiting += 1
    return used


# ---- encoding -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _longest(t, data, at):
    """The longest token that matches at `at`."""
    if at + 1 >= len(data):
        return np.int64(data[at])
    found = t.entry[np.int64(data[at]) << 8 | np.int64(data[at + 1])]
    slot = np.int64(found >> np.uint64(32))
    if slot == 0:
        return np.int64(found)
    base = np.int64(t.trie[slot] & np.uint64(0xFFFFFFFF))
    at += 2
    while base != 0 and at < len(data):
        child = base + np.int64(data[at])
        node = t.trie[child]
        if np.int64(node >> np.uint64(32)) != slot:
            break
        slot, base = child, np.int64(node & np.uint64(0xFFFFFFFF))
        at += 1
    return np.int64(t.best[slot])


@njit(cache=True, nogil=True)
def encode(t, data, out):
    """Writes the internal ids of `data` to `out` (as long as `data`); returns how many."""
    if len(data) == 0:
        return 0
    t = borrowed(t)
    prefix, length, verdict = t.prefix, t.length, t.verdict
    dead = np.zeros(len(data) + 1, np.uint8)
    done, at, token = 0, np.int64(0), _longest(t, data, np.int64(0))
    while True:
        end = at + np.int64(length[token])
        allowed = dead[end] == 0
        if allowed and done > 0:
            pair = np.uint64(out[done - 1]) << np.uint64(32) | np.uint64(token)
            slot = _hash(pair, len(verdict))
            known = verdict[slot]
            if known >> np.uint64(1) == pair:
                allowed = known & np.uint64(1) != 0
            else:
                allowed = _compatible(t, np.int64(out[done - 1]), token)
                verdict[slot] = pair << np.uint64(1) | np.uint64(allowed)
        if allowed:
            out[done] = token
            done += 1
            at = end
            if at == len(data):
                return done
            token = _longest(t, data, at)
        else:
            token = np.int64(prefix[token])
            if token == NONE:  # nothing fits here: this end of the last token was wrong
                dead[at] = 1
                done -= 1
                token = np.int64(out[done])
                at -= np.int64(length[token])


@njit(cache=True, nogil=True)
def decoded_length(internal, start, ids):
    """Bytes that `ids` stand for, or -1 - i if ids[i] is not one. `internal` maps a file's ids to
    internal ones, SPECIAL or UNKNOWN."""
    total = np.int64(0)
    for i in range(len(ids)):
        number = np.int64(ids[i])
        token = internal[number] if 0 <= number < len(internal) else UNKNOWN
        if token >= 0:
            total += start[token + 1] - start[token]
        elif token == UNKNOWN:
            return np.int64(-1 - i)
    return total


@njit(cache=True, nogil=True)
def decode(internal, start, text, head, ids, out):
    """Writes the bytes of ids that `decoded_length` has checked to `out`, which has 8 to spare.

    `head` holds the first eight bytes of each token: most tokens are one store.
    """
    at = np.int64(0)
    for i in range(len(ids)):
        token = internal[np.int64(ids[i])]
        if token >= 0:
            first = start[token]
            n = start[token + 1] - first
            store8(out, at, head[token])
            for k in range(8, n):
                out[at + k] = text[first + k]
            at += n


# ---- the textbook method ------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _heap_push(heap, size, key):
    at = size
    while at > 0 and key < heap[(at - 1) >> 1]:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@njit(cache=True, nogil=True)
def _heap_pop(heap, size):
    """Removes the least of `size` keys and returns it."""
    least, key, at, size = heap[0], heap[size - 1], 0, size - 1
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if key <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return least


@njit(cache=True, nogil=True)
def encode_by_rank(pair_key, pair_rank, pair_new, data, out):
    """Merges the pair of least rank, leftmost first, until none is left. O(n log n), any merges.

    `pair_rank` and `pair_new` lie beside `pair_key`. Returns how many ids were written to `out`.
    """
    n = len(data)
    symbol = np.empty(n + 1, np.int64)
    after, before = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    heap, size = np.empty(3 * n + 2, np.int64), 0
    for i in range(n):
        symbol[i], after[i], before[i] = data[i], i + 1, i - 1
    for i in range(n - 1):
        rank = _get_pair(pair_key, pair_rank, symbol[i], symbol[i + 1])
        if rank != NONE:
            _heap_push(heap, size, rank << 36 | i)
            size += 1
    while size > 0:
        key = _heap_pop(heap, size)
        size -= 1
        at, rank = key & ((np.int64(1) << 36) - 1), key >> 36
        if symbol[at] == NONE or after[at] >= n:
            continue
        other = after[at]
        if _get_pair(pair_key, pair_rank, symbol[at], symbol[other]) != rank:
            continue
        symbol[at] = _get_pair(pair_key, pair_new, symbol[at], symbol[other])
        symbol[other] = NONE
        after[at] = after[other]
        if after[at] < n:
            before[after[at]] = at
            rank = _get_pair(pair_key, pair_rank, symbol[at], symbol[after[at]])
            if rank != NONE:
                _heap_push(heap, size, rank << 36 | at)
                size += 1
        if before[at] >= 0:
            rank = _get_pair(pair_key, pair_rank, symbol[before[at]], symbol[at])
            if rank != NONE:
                _heap_push(heap, size, rank << 36 | before[at])
                size += 1
    count, i = 0, 0
    while i < n:
        out[count] = symbol[i]
        count += 1
        i = after[i]
    return count


@njit(cache=True, nogil=True)
def all_reachable(pair_key, pair_rank, pair_new, start, text):
    """Whether every token's own bytes encode to that token."""
    longest = 0
    for token in range(len(start) - 1):
        longest = max(longest, start[token + 1] - start[token])
    out = np.empty(longest, np.uint32)
    for token in range(256, len(start) - 1):
        data = text[start[token] : start[token + 1]]
        count = encode_by_rank(pair_key, pair_rank, pair_new, data, out)
        if count != 1 or out[0] != token:
            return False
    return True
