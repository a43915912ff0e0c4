"""The compiled core of BPE training: merges over raw bytes, exact counts, bounded memory.

The corpus is one array of *slots*, a separator between pieces. A token of width w keeps its id in
its first and its last slot, so its right neighbour is `p + width[id]` and its left neighbour ends
at `p - 1`: merging needs no linked list and no shifting, whatever the piece length.

Two facts make it fast. A pair can only lose occurrences once its younger token exists, so (1) a
stored count is an upper bound and the heap may be refreshed lazily, on popping, by re-reading the
pair's own positions; and (2) pairs born behind a threshold in merge order can be forgotten until
no tracked pair is before it; then everything is counted afresh (`rebuild`). Positions live in an
arena of fixed size that is compacted in place; if it still overflows, the threshold rises. A pair
too frequent to be worth a list (over 1/8 of the slots) is found by scanning. Merge order, ties
included, is that of Hugging Face `tokenizers`: higher count, then smaller left id, then smaller
right id. Nothing is sampled or approximated.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# indices into Core.reg
TOP, ROWS, HEAP, SLOTS, IDS, CAP, WORK, THETA, THETA_PAIR, BEST, BEST_PAIR = range(11)
# why `merge_some` returned
PAUSED, EXHAUSTED, COMPLETE = range(3)
SCANNED = -1  # `length` of a pair that is scanned for instead of listed
SCAN_SHARE = 8  # pairs over 1/8 of all slots, or over 1/4 of the arena, are scanned for
ANY_PAIR = np.iinfo(np.int64).max


class Core(NamedTuple):
    """Everything the trainer holds. N slots, V internal ids (V itself is the separator), P rows."""

    slots: np.ndarray  # (N,) uint16 or uint32
    width: np.ndarray  # (V+1,) int64: slots a token fills now
    size: np.ndarray  # (V+1,) int64: bytes it stands for
    changed: np.ndarray  # (V+1,) int64: the last merge that consumed this token
    merges: np.ndarray  # (V, 2) uint32: the parts of each id
    counts: np.ndarray  # (V,) int64: occurrences each id was born with
    left_tally: np.ndarray  # (V+1,) int64, zero between merges
    right_tally: np.ndarray
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
    bound: np.ndarray  # (P,) int64   | upper bound of the count; exact if nothing changed since
    stamp: np.ndarray  # (P,) int64  /  the merge at which `bound` was exact
    heap_count: np.ndarray  # (P,) int64
    heap_pair: np.ndarray  # (P,) int64, left << 32 | right
    heap_row: np.ndarray  # (P,) int64
    reg: np.ndarray  # scalars, see above


# ---- merge order: greatest count first, then the smallest pair ----------------------------------


@njit(cache=True, nogil=True, inline="always")
def _pack(left, right):
    return np.int64(left) << 32 | np.int64(right)


@njit(cache=True, nogil=True, inline="always")
def _tracked(reg, count, pair):
    """Whether a pair is before the threshold."""
    return count > reg[THETA] or (count == reg[THETA] and pair < reg[THETA_PAIR])


@njit(cache=True, nogil=True, inline="always")
def _before(core, count, pair, at):
    other = core.heap_count[at]
    return count > other or (count == other and pair < core.heap_pair[at])


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _push(core, row):
    at = core.reg[HEAP]
    core.reg[HEAP] = at + 1
    count = core.bound[row]
    pair = _pack(core.left[row], core.right[row])
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


@njit(cache=True, nogil=True)
def _replace_top(core, row):
    pair = _pack(core.left[row], core.right[row])
    _sift_down(core, 0, core.bound[row], pair, row, core.reg[HEAP])


@njit(cache=True, nogil=True)
def _drop_top(core):
    n = core.reg[HEAP] - 1
    core.reg[HEAP] = n
    if n > 0:
        _sift_down(core, 0, core.heap_count[n], core.heap_pair[n], core.heap_row[n], n)


@njit(cache=True, nogil=True)
def _heapify(core):
    n = core.reg[ROWS]
    for row in range(n):
        core.heap_count[row] = core.bound[row]
        core.heap_pair[row] = _pack(core.left[row], core.right[row])
        core.heap_row[row] = row
    core.reg[HEAP] = n
    for at in range(n // 2 - 1, -1, -1):
        _sift_down(core, at, core.heap_count[at], core.heap_pair[at], core.heap_row[at], n)


# ---- reading positions --------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _refresh(core, row):
    """Recounts one pair (overlaps included, as in `aaa`) and drops its stale positions."""
    slots = core.slots
    a, b, wide = core.left[row], core.right[row], core.width[core.left[row]]
    count = 0
    if core.length[row] == SCANNED:
        p, n = 1, core.reg[SLOTS]
        while p < n:
            token = slots[p]
            p += core.width[token]
            count += token == a and slots[p] == b
        core.reg[WORK] += n
    else:
        arena = core.arena
        start = core.start[row]
        for i in range(start, start + core.length[row]):
            p = arena[i]
            arena[start + count] = p
            count += slots[p] == a and slots[p + wide] == b
        core.reg[WORK] += core.length[row]
        core.length[row] = count
    core.bound[row] = count
    core.stamp[row] = core.reg[IDS]


@njit(cache=True, nogil=True)
def _find_pairs(core, a, b, p):
    """Fills `scratch` with non-overlapping starts of (a, b) from token start `p` on.

    Returns (found, where to go on); the end is reached when found < len(scratch).
    """
    slots, scratch, n = core.slots, core.scratch, core.reg[SLOTS]
    found = 0
    while p < n and found < len(scratch):
        token = slots[p]
        after = p + core.width[token]
        if token == a and slots[after] == b:
            scratch[found] = p
            found += 1
            after += core.width[b]
        p = after
    return found, p


@njit(cache=True, nogil=True)
def _find_token(core, a, p):
    slots, scratch, n = core.slots, core.scratch, core.reg[SLOTS]
    found = 0
    while p < n and found < len(scratch):
        token = slots[p]
        if token == a:
            scratch[found] = p
            found += 1
        p += core.width[token]
    return found, p


# ---- one merge ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _fuse(core, places, a, b, new, seen):
    """Merges at `places`, in order; tallies the neighbours. Keeps the merged places in front.

    Returns (merged places, distinct left neighbours << 32 | distinct right neighbours).
    """
    slots, sep = core.slots, len(core.width) - 1
    left_tally, right_tally = core.left_tally, core.right_tally
    wa, wb = core.width[a], core.width[b]
    lefts, rights = seen >> 32, seen & 0xFFFFFFFF
    kept = 0
    for i in range(len(places)):
        p = np.int64(places[i])
        if slots[p] != a or slots[p + wa] != b:
            continue
        end = p + wa + wb
        x, y = slots[p - 1], slots[end]
        slots[p] = new
        slots[p + wa] = sep  # an inner slot must never look like a token's start
        slots[end - 1] = new
        if left_tally[x] == 0:
            core.left_seen[lefts] = x
            lefts += 1
        left_tally[x] += 1
        if right_tally[y] == 0:
            core.right_seen[rights] = y
            rights += 1
        right_tally[y] += 1
        places[kept] = p
        kept += 1
    return kept, lefts << 32 | rights


@njit(cache=True, nogil=True)
def _track(core, left, right, count):
    """Tracks a pair before the threshold, if it is within the length cap; reserves its list.

    Returns where the list begins, or -1 for none. A pair that finds no room raises the threshold.
    """
    pair = _pack(left, right)
    if core.size[left] + core.size[right] > core.reg[CAP]:
        return -1
    row, top = core.reg[ROWS], core.reg[TOP]
    scanned = count * SCAN_SHARE > core.reg[SLOTS] or count * 4 > len(core.arena)
    if row == len(core.left) or (not scanned and top + count > len(core.arena)):
        core.reg[THETA], core.reg[THETA_PAIR] = count, pair
        return -1
    core.reg[ROWS] = row + 1
    core.left[row], core.right[row] = left, right
    core.bound[row], core.stamp[row] = count, core.reg[IDS]
    core.start[row] = top
    if scanned:
        core.length[row] = SCANNED
        return -1
    core.length[row] = count
    core.reg[TOP] = top + count
    return top


@njit(cache=True, nogil=True)
def _write_lists(core, places, new):
    slots, arena, width = core.slots, core.arena, core.width
    left_room, right_room, wide = core.left_room, core.right_room, core.width[new]
    for i in range(len(places)):
        p = np.int64(places[i])
        x, y = slots[p - 1], slots[p + wide]
        at = left_room[x]
        if at >= 0:
            arena[at] = p - width[x]
            left_room[x] = at + 1
        at = right_room[y]
        if at >= 0:
            arena[at] = p
            right_room[y] = at + 1


@njit(cache=True, nogil=True)
def _register_births(core, new, first, seen):
    """Tracks the pairs the new token formed; returns whether any of them needs a list."""
    sep = len(core.width) - 1
    lefts, rights = seen >> 32, seen & 0xFFFFFFFF
    left_tally, right_tally, reg = core.left_tally, core.right_tally, core.reg
    twins = left_tally[new]  # the site to the right was merged after being tallied
    right_tally[first] -= twins
    if twins > 0:
        right_tally[new] = twins
        core.right_seen[rights] = new
        rights += 1
    lists, first_row = False, reg[ROWS]
    for x in core.left_seen[:lefts]:
        count = left_tally[x]
        left_tally[x] = 0
        if x != sep and x != new and _tracked(reg, count, _pack(x, new)):
            core.left_room[x] = _track(core, x, new, count)
            lists |= core.left_room[x] >= 0
    for y in core.right_seen[:rights]:
        count = right_tally[y]
        right_tally[y] = 0
        if y != sep and _tracked(reg, count, _pack(new, y)):
            core.right_room[y] = _track(core, new, y, count)
            lists |= core.right_room[y] >= 0
    for row in range(first_row, core.reg[ROWS]):
        _push(core, row)
    return lists, lefts, rights


@njit(cache=True, nogil=True)
def _merge(core, row):
    """Merges the pair of `row`, which is off the heap, into the next id."""
    a, b = core.left[row], core.right[row]
    new = core.reg[IDS]
    core.reg[IDS] = new + 1
    core.merges[new, 0], core.merges[new, 1] = a, b
    core.counts[new] = core.bound[row]
    core.width[new] = core.width[a] + core.width[b]
    core.size[new] = core.size[a] + core.size[b]
    core.changed[a] = core.changed[b] = core.changed[new] = new + 1
    start, listed = core.start[row], core.length[row] != SCANNED
    kept, seen = np.int64(0), np.int64(0)
    if listed:
        places = core.arena[start : start + core.length[row]]
        core.reg[WORK] += len(places)
        kept, seen = _fuse(core, places, a, b, new, seen)
    else:
        found, p = len(core.scratch), np.int64(1)
        while found == len(core.scratch):
            found, p = _find_pairs(core, a, b, p)
            _, seen = _fuse(core, core.scratch[:found], a, b, new, seen)
        core.reg[WORK] += core.reg[SLOTS]
    core.length[row] = 0
    core.bound[row] = 0
    lists, lefts, rights = _register_births(core, new, a, seen)
    if lists and listed:
        _write_lists(core, core.arena[start : start + kept], new)
    elif lists:
        found, p = len(core.scratch), np.int64(1)
        while found == len(core.scratch):
            found, p = _find_token(core, new, p)
            _write_lists(core, core.scratch[:found], new)
    if lists:
        for i in range(lefts):
            core.left_room[core.left_seen[i]] = -1
        for i in range(rights):
            core.right_room[core.right_seen[i]] = -1


@njit(cache=True, nogil=True)
def _is_exact(core, row):
    stamp = core.stamp[row]
    return core.changed[core.left[row]] <= stamp and core.changed[core.right[row]] <= stamp


# ---- the arena ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _collect(core, fresh):
    """Drops rows behind the threshold and (unless all are `fresh`) stale positions; closes gaps.

    Rows are in arena order, so everything moves down in place. The heap is invalid afterwards.
    """
    rows = top = 0
    for row in range(core.reg[ROWS]):
        pair = _pack(core.left[row], core.right[row])
        if not _tracked(core.reg, core.bound[row], pair):
            continue
        if not fresh and core.length[row] != SCANNED and not _is_exact(core, row):
            _refresh(core, row)
            if not _tracked(core.reg, core.bound[row], pair):
                continue
        start, length = core.start[row], core.length[row]
        for i in range(length):
            core.arena[top + i] = core.arena[start + i]
        core.left[rows], core.right[rows] = core.left[row], core.right[row]
        core.bound[rows], core.stamp[rows] = core.bound[row], core.stamp[row]
        core.start[rows], core.length[rows] = top, length
        rows += 1
        top += max(length, 0)
    core.reg[ROWS], core.reg[TOP] = rows, top


@njit(cache=True, nogil=True)
def _over_half(core, used, rows):
    return 2 * used > len(core.arena) or 2 * rows > len(core.left)


@njit(cache=True, nogil=True)
def _make_room(core, fresh):
    """Compacts; if more than half is still in use, raises the threshold until it is not."""
    _collect(core, fresh)
    _heapify(core)
    if _over_half(core, core.reg[TOP], core.reg[ROWS]):
        used, rows = 0, 0
        while True:
            used += max(core.length[core.heap_row[0]], 0)
            rows += 1
            if _over_half(core, used, rows):
                break
            _drop_top(core)
        core.reg[THETA], core.reg[THETA_PAIR] = core.heap_count[0], core.heap_pair[0]
        _collect(core, True)
        _heapify(core)


@njit(cache=True, nogil=True)
def _lacks_room(core, row):
    """Whether merging `row` could find the arena or the table of pairs full."""
    births = 2 * min(core.bound[row], core.reg[IDS]) + 2
    if core.length[row] == SCANNED:
        room = len(core.arena) // 2
    else:
        room = 2 * core.bound[row]
    full = core.reg[TOP] + room > len(core.arena)
    return full or core.reg[ROWS] + births > len(core.left)


# ---- entry points -------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def merge_some(core, ids, work):
    """Merges until there are `ids` ids, about `work` positions were read, or no pair is tracked.

    Returns COMPLETE, PAUSED or EXHAUSTED.
    """
    core.reg[WORK] = 0
    while core.reg[IDS] < ids:
        if core.reg[WORK] > work:
            return PAUSED
        if core.reg[HEAP] == 0 or not _tracked(core.reg, core.heap_count[0], core.heap_pair[0]):
            return EXHAUSTED
        row = core.heap_row[0]
        if not _is_exact(core, row):
            _refresh(core, row)
            if core.bound[row] != core.heap_count[0]:
                _replace_top(core, row)
                continue
        if _lacks_room(core, row):
            _make_room(core, False)
            if _lacks_room(core, core.heap_row[0]):
                return EXHAUSTED
            continue
        _drop_top(core)
        _merge(core, row)
    return COMPLETE


@njit(cache=True, nogil=True)
def _compact(core):
    """One slot a token again."""
    slots, n = core.slots, core.reg[SLOTS]
    p = to = np.int64(0)
    while p < n:
        token = slots[p]
        slots[to] = token
        to += 1
        p += core.width[token]
    core.reg[SLOTS] = to
    core.width[:] = 1


@njit(cache=True, nogil=True)
def _tally_rights(core, places, rights):
    for i in range(len(places)):
        y = core.slots[np.int64(places[i]) + 1]
        if core.right_tally[y] == 0:
            core.right_seen[rights] = y
            rights += 1
        core.right_tally[y] += 1
    return rights


@njit(cache=True, nogil=True)
def _track_rights(core, left, rights):
    sep = len(core.width) - 1
    if core.reg[ROWS] + rights > len(core.left):
        _make_room(core, True)
    reg, right_tally, cap = core.reg, core.right_tally, core.reg[CAP] - core.size[left]
    for y in core.right_seen[:rights]:
        count, pair = right_tally[y], _pack(left, y)
        right_tally[y] = 0
        if y == sep or core.size[y] > cap:
            continue
        if count > reg[BEST] or (count == reg[BEST] and pair < reg[BEST_PAIR]):
            reg[BEST], reg[BEST_PAIR] = count, pair
        if _tracked(reg, count, pair):
            core.right_room[y] = _track(core, left, y, count)


@njit(cache=True, nogil=True)
def _list_rights(core, places):
    for i in range(len(places)):
        y = core.slots[np.int64(places[i]) + 1]
        at = core.right_room[y]
        if at >= 0:
            core.arena[at] = places[i]
            core.right_room[y] = at + 1


@njit(cache=True, nogil=True)
def _forget_rooms(core, rights):
    for i in range(rights):
        core.right_room[core.right_seen[i]] = -1


@njit(cache=True, nogil=True)
def _rebuild_scanning(core, left):
    """Tracks all pairs of one left token that is too frequent to gather."""
    found, p, rights = len(core.scratch), np.int64(1), np.int64(0)
    while found == len(core.scratch):
        found, p = _find_token(core, left, p)
        rights = _tally_rights(core, core.scratch[:found], rights)
    _track_rights(core, left, rights)
    found, p = len(core.scratch), np.int64(1)
    while found == len(core.scratch):
        found, p = _find_token(core, left, p)
        _list_rights(core, core.scratch[:found])
    _forget_rooms(core, rights)


@njit(cache=True, nogil=True)
def _rebuild_range(core, frequency, low, high, total):
    """Tracks all pairs whose left token is in [low, high): gathers places by left token at the end
    of the arena, then counts right neighbours per left token."""
    arena, room, theta = core.arena, core.left_room, core.reg[THETA]
    at = len(arena) - total
    for left in range(low, high):
        if frequency[left] >= theta:
            room[left] = at
            at += frequency[left]
    slots = core.slots
    for p in range(1, core.reg[SLOTS]):
        at = room[slots[p]]
        if at >= 0:
            arena[at] = p
            room[slots[p]] = at + 1
    for left in range(low, high):
        if room[left] >= 0:
            places = arena[room[left] - frequency[left] : room[left]]
            room[left] = -1
            rights = _tally_rights(core, places, np.int64(0))
            _track_rights(core, left, rights)
            _list_rights(core, places)
            _forget_rooms(core, rights)


@njit(cache=True, nogil=True)
def rebuild(core, theta):
    """Counts all pairs of the corpus as it is now; tracks those with `theta` occurrences or more,
    as far as they fit into half of the arena, but at least the best."""
    _compact(core)
    _track_all(core, theta, ANY_PAIR)
    if core.reg[ROWS] == 0 and core.reg[BEST] >= theta:
        _track_all(core, core.reg[BEST], core.reg[BEST_PAIR] + 1)


@njit(cache=True, nogil=True)
def _track_all(core, theta, theta_pair):
    core.reg[TOP] = core.reg[ROWS] = core.reg[HEAP] = core.reg[BEST] = 0
    core.reg[THETA], core.reg[THETA_PAIR] = theta, theta_pair
    ids = core.reg[IDS]
    frequency = np.zeros(len(core.width), np.int64)
    for p in range(core.reg[SLOTS]):
        frequency[core.slots[p]] += 1
    low = np.int64(0)
    while low < ids:
        if _over_half(core, core.reg[TOP], core.reg[ROWS]):
            _make_room(core, True)
        space = (len(core.arena) - core.reg[TOP]) // 2
        if frequency[low] > space:
            _rebuild_scanning(core, low)
            low += 1
            continue
        high, total, theta = low, np.int64(0), core.reg[THETA]
        while high < ids and (frequency[high] < theta or total + frequency[high] <= space):
            total += frequency[high] if frequency[high] >= theta else 0
            high += 1
        if total > 0:
            _rebuild_range(core, frequency, low, high, total)
        low = high
    if _over_half(core, core.reg[TOP], core.reg[ROWS]):
        _make_room(core, True)
    else:
        _heapify(core)
