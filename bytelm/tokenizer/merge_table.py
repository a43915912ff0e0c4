"""What BPE training keeps in memory: slots, tracked pairs, their positions, and the heap of them.

The corpus is one array of *slots*, a separator between pieces. A token of width w keeps its id in
its first and its last slot, so its right neighbour is `p + width[id]` and its left neighbour ends
at `p - 1`: merging needs no linked list and no shifting, whatever the piece length. The positions
of tracked pairs lie in an arena of fixed size that is compacted in place; if it still overflows,
the threshold rises. A pair too frequent to be worth a list (over 1/8 of the slots) is found by
scanning. Compiled code is cached per file: after an edit here, clear the caches of the two modules
that call it.
"""

from typing import NamedTuple

import numpy as np

from bytelm.compiled import compiled, inlined

# indices into Core.reg
TOP, ROWS, HEAP, SLOTS, IDS, CAP, WORK, THETA, THETA_PAIR, BEST, BEST_PAIR = range(11)
INDEX = 11  # log2 of the entries of `key` in use
FLAT = 12  # ids when every token last filled one slot
SCANNED = -1  # `length` of a pair that is scanned for instead of listed
SCAN_SHARE = 8  # pairs over 1/8 of all slots, or over 1/4 of the arena, are scanned for
ANY_PAIR = np.iinfo(np.int64).max
EMPTY = -1
LEAST_INDEX = 14  # table of names: 2^this entries at first
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Core(NamedTuple):
    """Everything the trainer holds. N slots, V internal ids (V itself is the separator), P rows."""

    slots: np.ndarray  # (N,) uint16 or uint32
    width: np.ndarray  # (V+1,) int64: slots a token fills now
    size: np.ndarray  # (V+1,) int64: bytes it stands for
    merges: np.ndarray  # (V, 2) uint32: the parts of each id
    counts: np.ndarray  # (V,) int64: occurrences each id was born with
    left_counts: np.ndarray  # (V+1,) int64, zero between merges
    right_counts: np.ndarray
    left_seen: np.ndarray  # (V+1,) int64: distinct neighbours of this merge
    right_seen: np.ndarray
    left_room: np.ndarray  # (V+1,) int64: where in the arena the next position goes, or -1
    right_room: np.ndarray
    arena: np.ndarray  # (A,) uint32 positions
    scratch: np.ndarray  # (C,) uint32 positions, when scanning
    left: np.ndarray  # (P,) uint32 \
    right: np.ndarray  # (P,) uint32  | tracked pairs, in arena order
    start: np.ndarray  # (P,) int64   |
    length: np.ndarray  # (P,) int64  |
    count: np.ndarray  # type: ignore[assignment]  # (P,) int64  /
    key: np.ndarray  # (H,) int64: open addressing, pair -> row; EMPTY where free
    row_of: np.ndarray  # (H,) int32
    heap_count: np.ndarray  # (P,) int64
    heap_pair: np.ndarray  # (P,) int64, left << 32 | right
    heap_row: np.ndarray  # (P,) int64
    reg: np.ndarray  # scalars, see above


# ---- merge order: greatest count first, then the smallest pair -----------------------------------


@inlined
def pack(left, right):
    """A pair as one int64."""
    return np.int64(left) << 32 | np.int64(right)


@inlined
def tracked(reg, count, pair):
    """Whether a pair is before the threshold."""
    return count > reg[THETA] or (count == reg[THETA] and pair < reg[THETA_PAIR])


@inlined
def _before(core, count, pair, at):
    other = core.heap_count[at]
    return count > other or (count == other and pair < core.heap_pair[at])


@compiled
def _sift_down(core, at, count, pair, row, n):
    """Puts an item at `at` or below."""
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and _before(
            core, core.heap_count[child + 1], core.heap_pair[child + 1], child
        ):
            child += 1
        if _before(core, count, pair, child):
            break
        core.heap_count[at] = core.heap_count[child]
        core.heap_pair[at] = core.heap_pair[child]
        core.heap_row[at] = core.heap_row[child]
        at = child
    core.heap_count[at] = count
    core.heap_pair[at] = pair
    core.heap_row[at] = row


@compiled
def push(core, row):
    """Adds a tracked pair to the heap."""
    at = core.reg[HEAP]
    core.reg[HEAP] = at + 1
    count = core.count[row]
    pair = pack(core.left[row], core.right[row])
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(core, count, pair, parent):
            break
        core.heap_count[at] = core.heap_count[parent]
        core.heap_pair[at] = core.heap_pair[parent]
        core.heap_row[at] = core.heap_row[parent]
        at = parent
    core.heap_count[at] = count
    core.heap_pair[at] = pair
    core.heap_row[at] = row


@compiled
def replace_top(core, row):
    """Puts a pair in the place of the first one of the heap."""
    pair = pack(core.left[row], core.right[row])
    _sift_down(core, 0, core.count[row], pair, row, core.reg[HEAP])


@compiled
def drop_top(core):
    """Removes the first pair of the heap."""
    n = core.reg[HEAP] - 1
    core.reg[HEAP] = n
    if n > 0:
        _sift_down(core, 0, core.heap_count[n], core.heap_pair[n], core.heap_row[n], n)


@compiled
def heapify(core):
    """Makes the heap of all tracked pairs."""
    n = core.reg[ROWS]
    for row in range(n):
        core.heap_count[row] = core.count[row]
        core.heap_pair[row] = pack(core.left[row], core.right[row])
        core.heap_row[row] = row
    core.reg[HEAP] = n
    for at in range(n // 2 - 1, -1, -1):
        _sift_down(core, at, core.heap_count[at], core.heap_pair[at], core.heap_row[at], n)


# ---- tracked pairs by name -----------------------------------------------------------------------


@compiled
def _find(core, pair):
    """Where in `key` the pair is, or where it would go."""
    bits = np.uint64(core.reg[INDEX])
    last = (np.uint64(1) << bits) - np.uint64(1)
    mixed = np.uint64(pair) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX  # once alone, pairs of small ids huddle
    at = mixed >> (np.uint64(64) - bits)
    while core.key[at] != pair and core.key[at] != EMPTY:
        at = (at + np.uint64(1)) & last
    return at


@compiled
def lose(core, pair, lost):
    """A pair occurs `lost` times less."""
    at = _find(core, pair)
    if core.key[at] != EMPTY:
        core.count[core.row_of[at]] -= lost


@compiled
def empty_index(core):
    """Forgets all pairs. The table of names begins small, to stay in the cache, and grows."""
    core.reg[INDEX] = LEAST_INDEX
    core.key[: np.int64(1) << LEAST_INDEX] = EMPTY


@compiled
def _index_rows(core):
    size = np.int64(1) << core.reg[INDEX]
    while size < 4 * core.reg[ROWS] and size < len(core.key):
        size *= 2
        core.reg[INDEX] += 1
    core.key[:size] = EMPTY
    for row in range(core.reg[ROWS]):
        at = _find(core, pack(core.left[row], core.right[row]))
        core.key[at] = pack(core.left[row], core.right[row])
        core.row_of[at] = row


@compiled
def track(core, left, right, count):
    """Tracks a pair before the threshold, if it is within the length cap; reserves its list.

    Returns where the list begins, or -1 for none. A pair that finds no room raises the threshold.
    """
    pair = pack(left, right)
    if core.size[left] + core.size[right] > core.reg[CAP]:
        return -1
    row, top = core.reg[ROWS], core.reg[TOP]
    scanned = count * SCAN_SHARE > core.reg[SLOTS] or count * 4 > len(core.arena)
    if row == len(core.left) or (not scanned and top + count > len(core.arena)):
        core.reg[THETA], core.reg[THETA_PAIR] = count, pair
        return -1
    core.reg[ROWS] = row + 1
    core.left[row], core.right[row] = left, right
    core.count[row] = count
    core.start[row] = top
    size = np.int64(1) << core.reg[INDEX]
    if 4 * row >= size and size < len(core.key):
        _index_rows(core)
    else:
        at = _find(core, pair)
        core.key[at], core.row_of[at] = pair, row
    if scanned:
        core.length[row] = SCANNED
        return -1
    core.length[row] = count
    core.reg[TOP] = top + count
    return top


# ---- positions and the arena ---------------------------------------------------------------------


@compiled
def find_token(core, a, p, n):
    """Fills `scratch` with starts of token `a` from `p` up to slot n; (found, where to resume)."""
    slots, scratch = core.slots, core.scratch
    found = 0
    while p < n and found < len(scratch):
        token = slots[p]
        if token == a:
            scratch[found] = p
            found += 1
        p += core.width[token]
    return found, p


@compiled
def drop_stale(core, row):
    """Closes the gaps in a pair's list; overlapping occurrences, as in `aaa`, stay."""
    slots, arena = core.slots, core.arena
    a, b, wide = core.left[row], core.right[row], core.width[core.left[row]]
    start, kept = core.start[row], 0
    for i in range(start, start + core.length[row]):
        p = arena[i]
        arena[start + kept] = p
        kept += slots[p] == a and slots[p + wide] == b
    core.reg[WORK] += core.length[row]
    core.length[row] = kept


@compiled
def _collect(core):
    """Drops rows behind the threshold and stale positions, and closes the gaps.

    Rows are in arena order, so everything moves down in place. The heap is invalid afterwards.
    """
    rows = top = 0
    for row in range(core.reg[ROWS]):
        pair = pack(core.left[row], core.right[row])
        if not tracked(core.reg, core.count[row], pair):
            continue
        if core.length[row] > core.count[row]:
            drop_stale(core, row)
        start, length = core.start[row], core.length[row]
        for i in range(length):
            core.arena[top + i] = core.arena[start + i]
        core.left[rows], core.right[rows] = core.left[row], core.right[row]
        core.count[rows] = core.count[row]
        core.start[rows], core.length[rows] = top, length
        rows += 1
        top += max(length, 0)
    core.reg[ROWS], core.reg[TOP] = rows, top
    _index_rows(core)


@compiled
def over_half(core, used, rows):
    """Whether more than half of the arena, or of the rows, is in use."""
    return 2 * used > len(core.arena) or 2 * rows > len(core.left)


@compiled
def make_room(core):
    """Compacts; if more than half is still in use, raises the threshold until it is not."""
    _collect(core)
    heapify(core)
    if over_half(core, core.reg[TOP], core.reg[ROWS]):
        used, rows = 0, 0
        while True:
            used += max(core.length[core.heap_row[0]], 0)
            rows += 1
            if over_half(core, used, rows):
                break
            drop_top(core)
        core.reg[THETA], core.reg[THETA_PAIR] = core.heap_count[0], core.heap_pair[0]
        _collect(core)
        heapify(core)
