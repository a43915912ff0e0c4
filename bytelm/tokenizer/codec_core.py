"""The compiled core of the codec: exact BPE encoding in linear time on ordinary data.

Encoding follows from one fact: a token sequence is the BPE encoding of its bytes exactly if every
two neighbours are (the pair's bytes encode to that pair). So the encoder walks from left to right,
takes the longest token that matches, falls back to the token's longest prefix that is a token when
the pair test fails, and steps back over a token when nothing fits; an end that failed once is never
tried again. The pair test is repeated rather than remembered: half of all pairs are new even to a
large cache, and a branch that guesses wrong costs more than the test. This needs ids in merge order
and every token reachable, which `all_reachable` checks; `encode_by_rank`, the textbook method with
a heap, serves every other vocabulary (and, in the tests, as the reference).
"""

import numpy as np

from bytelm.compiled import compiled
from bytelm.tokenizer.codec_tables import longest, merged, pair_shifts
from bytelm.tokenizer.intrinsics import borrowed, store8

SPECIAL, UNKNOWN = -1, -2  # ids that are no bytes
_LOW = np.uint64(0xFFFFFFFF)
GONE = _LOW  # a symbol merged into its left neighbour


@compiled
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


# ---- the fast method ----------------------------------------------------------------------------


@compiled
def _compatible(t, shifts, x, y):
    """Whether BPE leaves the boundary between tokens x and y (uint64) alone.

    x was built up along its right edge, y along its left edge. While (x', y') stood side by side,
    before either was absorbed into the next larger part, they would have merged if that merge came
    earlier than both absorptions; of equal merges the one further left goes first, so a merge equal
    to the one absorbing y' breaks the boundary and one equal to that absorbing x' does not.
    """
    absorbs_x = absorbs_y = _LOW
    while True:
        token = merged(t.parts, t.filter, t.pairs, shifts, x, y)
        if token != 0 and token < absorbs_x and token <= absorbs_y:
            return False
        younger = max(x, y)
        if younger < 256:
            return True
        parts = t.parts[younger]
        if x >= y:
            absorbs_x, x = younger, parts & _LOW
        else:
            absorbs_y, y = younger, parts >> np.uint64(32)


@compiled
def encode(t, data, out):
    """Writes the internal ids of `data` to `out` (as long as `data`); returns how many."""
    if len(data) == 0:
        return 0
    t = borrowed(t)
    entry, trie, steps = t.entry, t.trie, t.steps
    shifts = pair_shifts(t.filter, t.pairs)
    dead = np.zeros(len(data) + 1, np.uint8)
    done, at = 0, np.int64(0)
    token, before = longest(entry, trie, data, at), np.uint64(0)
    while True:
        step = steps[token]
        end = at + np.int64(step & _LOW)
        if dead[end] == 0 and (done == 0 or _compatible(t, shifts, before, token)):
            out[done] = token
            done += 1
            at = end
            if at == len(data):
                return done
            before, token = token, longest(entry, trie, data, at)
        elif step >> np.uint64(32) != _LOW:
            token = step >> np.uint64(32)
        else:  # nothing fits here: this end of the last token was wrong
            dead[at] = 1
            done -= 1
            token = before
            before = np.uint64(out[done - 1]) if done > 0 else np.uint64(0)
            at -= np.int64(steps[token] & _LOW)


@compiled
def encode_pieces(t, data, bounds, out, counts):
    """Encodes the pieces data[bounds[i] : bounds[i + 1]], one after another in `out` (as long as
    `data`); `counts` gets the ids of each. Returns how many ids there are in all."""
    total = 0
    for i in range(len(counts)):
        counts[i] = encode(t, data[bounds[i] : bounds[i + 1]], out[total:])
        total += counts[i]
    return total


@compiled
def compatible(t, x, y):
    """Whether token y may follow token x in an encoding."""
    shifts = pair_shifts(t.filter, t.pairs)
    return _compatible(t, shifts, np.uint64(x), np.uint64(y))


@compiled
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


@compiled
def decode(internal, start, text, head, ids, out):
    """Writes the bytes of ids that `decoded_length` has checked to `out`, which has their length.

    `head` holds the first eight bytes of each token: most tokens are one store, except at the end,
    where eight bytes would be too many.
    """
    at = np.int64(0)
    for i in range(len(ids)):
        token = internal[np.int64(ids[i])]
        if token >= 0:
            first = start[token]
            n = start[token + 1] - first
            if at + 8 <= len(out):
                store8(out, at, head[token])
                done = np.int64(8)
            else:
                done = np.int64(0)
            for k in range(done, n):
                out[at + k] = text[first + k]
            at += n


# ---- the textbook method ------------------------------------------------------------------------


@compiled
def _heap_push(heap, size, key):
    at = size
    while at > 0 and key < heap[(at - 1) >> 1]:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@compiled
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


@compiled
def _offer(parts, filter, pairs, shifts, symbol, heap, size, at, after):
    """Queues the merge of the symbols at two neighbouring places, if there is one: rank << 36 | at.
    Returns the size of the heap."""
    rank = np.int64(merged(parts, filter, pairs, shifts, symbol[at], symbol[after]))
    if rank == 0:
        return size
    _heap_push(heap, size, rank << 36 | at)
    return size + 1


@compiled
def encode_by_rank(parts, filter, pairs, made, data, out):
    """Merges the pair of least rank, leftmost first, until none is left. O(n log n), any merges.

    The rank of a merge is the id of its token; `made` holds the id that stands for that token's
    bytes. Returns how many ids were written to `out`.
    """
    n, shifts = len(data), pair_shifts(filter, pairs)
    symbol = np.empty(n + 1, np.uint64)
    after, before = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    heap, size = np.empty(3 * n + 2, np.int64), 0
    for i in range(n):
        symbol[i], after[i], before[i] = data[i], i + 1, i - 1
    for i in range(n - 1):
        size = _offer(parts, filter, pairs, shifts, symbol, heap, size, i, i + 1)
    while size > 0:
        key = _heap_pop(heap, size)
        size -= 1
        at, rank = key & ((np.int64(1) << 36) - 1), key >> 36
        if symbol[at] == GONE or after[at] >= n:
            continue
        other = after[at]
        if merged(parts, filter, pairs, shifts, symbol[at], symbol[other]) != rank:
            continue
        symbol[at] = made[rank]
        symbol[other] = GONE
        after[at] = after[other]
        if after[at] < n:
            before[after[at]] = at
            size = _offer(parts, filter, pairs, shifts, symbol, heap, size, at, after[at])
        if before[at] >= 0:
            size = _offer(parts, filter, pairs, shifts, symbol, heap, size, before[at], at)
    count, i = 0, 0
    while i < n:
        out[count] = symbol[i]
        count += 1
        i = after[i]
    return count


@compiled
def all_reachable(parts, filter, pairs, made, start, text):
    """Whether every token's own bytes encode to that token."""
    size = 0
    for token in range(len(start) - 1):
        size = max(size, start[token + 1] - start[token])
    out = np.empty(size, np.uint32)
    for token in range(256, len(start) - 1):
        data = text[start[token] : start[token + 1]]
        count = encode_by_rank(parts, filter, pairs, made, data, out)
        if count != 1 or out[0] != token:
            return False
    return True
