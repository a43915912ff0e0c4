"""The compiled core of BPE training: merges over raw bytes, exact counts, bounded memory.

The corpus is one array of *slots*, a separator between pieces. A token of width w keeps its id in
its first and its last slot, so its right neighbour is `p + width[id]` and its left neighbour ends
at `p - 1`: merging needs no linked list and no shifting, whatever the piece length.

One fact makes it fast: a pair can only lose occurrences once its younger token exists. So the heap
may be refreshed lazily, on popping; and pairs born behind a threshold in merge order can be
forgotten until no tracked pair is before it; then everything is counted afresh (`rebuild`). A merge
tallies its neighbours in dense arrays and touches the table of tracked pairs once per distinct
neighbour, not once per site. Positions live in an
arena of fixed size that is compacted in place; if it still overflows, the threshold rises. A pair
too frequent to be worth a list (over 1/8 of the slots) is found by scanning. Merge order, ties
included, is that of Hugging Face `tokenizers`: higher count, then smaller left id, then smaller
right id. Nothing is sampled or approximated.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from bytelm.tokenizer.borrow import borrowed, prefetch

# indices into Core.reg
TOP, ROWS, HEAP, SLOTS, IDS, CAP, WORK, THETA, THETA_PAIR, BEST, BEST_PAIR = range(11)
# why `merge_some` returned
PAUSED, EXHAUSTED, COMPLETE = range(3)
SCANNED = -1  # `length` of a pair that is scanned for instead of listed
SCAN_SHARE = 8  # pairs over 1/8 of all slots, or over 1/4 of the arena, are scanned for
ANY_PAIR = np.iinfo(np.int64).max
EMPTY = -1
AHEAD = 16  # places to fetch in advance: they are far apart, and the next one is known
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Core(NamedTuple):
    """Everything the trainer holds. N slots, V internal ids (V itself is the separator), P rows."""

    slots: np.ndarray  # (N,) uint16 or uint32
    width: np.ndarray  # (V+1,) int64: slots a token fills now
    size: np.ndarray  # (V+1,) int64: bytes it stands for
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
    count: np.ndarray  # (P,) int64  /
    key: np.ndarray  # (H,) int64: open addressing, pair -> row; EMPTY where free
    row_of: np.ndarray  # (H,) int32
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
    count = core.count[row]
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
    _sift_down(core, 0, core.count[row], pair, row, core.reg[HEAP])


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
        core.heap_count[row] = core.count[row]
        core.heap_pair[row] = _pack(core.left[row], core.right[row])
        core.heap_row[row] = row
    core.reg[HEAP] = n
    for at in range(n // 2 - 1, -1, -1):
        _sift_down(core, at, core.heap_count[at], core.heap_pair[at], core.heap_row[at], n)


# ---- tracked pairs by name ----------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _find(core, pair):
    """Where in `key` the pair is, or where it would go."""
    last = np.uint64(len(core.key) - 1)
    at = ((np.uint64(pair) * _MIX) >> np.uint64(32)) & last
    while core.key[at] != pair and core.key[at] != EMPTY:
        at = (at + np.uint64(1)) & last
    return at


@njit(cache=True, nogil=True)
def _lose(core, pair, lost):
    """A pair occurs `lost` times less."""
    at = _find(core, pair)
    if core.key[at] != EMPTY:
        core.count[core.row_of[at]] -= lost


@njit(cache=True, nogil=True)
def _index_rows(core):
    core.key[:] = EMPTY
    for row in range(core.reg[ROWS]):
        at = _find(core, _pack(core.left[row], core.right[row]))
        core.key[at] = _pack(core.left[row], core.right[row])
        core.row_of[at] = row


# ---- reading positions --------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _drop_stale(core, row):
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
    kept, last = 0, len(places) - 1
    for i in range(len(places)):
        prefetch(slots, np.int64(places[min(i + AHEAD, last)]))
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
    core.count[row] = count
    core.start[row] = top
    at = _find(core, pair)
    core.key[at], core.row_of[at] = pair, row
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
def _settle_counts(core, a, b, new, seen):
    """Takes the tallied neighbours from the pairs they were in, and tracks the new pairs.

    Returns whether any new pair needs a list, and the numbers of neighbours seen.
    """
    sep, first_row, lists = len(core.width) - 1, core.reg[ROWS], False
    lefts, rights = seen >> 32, seen & 0xFFFFFFFF
    left_tally, right_tally, reg = core.left_tally, core.right_tally, core.reg
    for x in core.left_seen[:lefts]:
        if x != sep and x != new:
            _lose(core, _pack(x, a), left_tally[x])
    for y in core.right_seen[:rights]:
        if y != sep:
            _lose(core, _pack(b, y), right_tally[y])
    twins = left_tally[new]  # here the site to the right was merged after being tallied
    right_tally[a] -= twins
    if twins > 0:
        right_tally[new] = twins
        core.right_seen[rights] = new
        rights += 1
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
    for row in range(first_row, reg[ROWS]):
        _push(core, row)
    return lists, lefts, rights


@njit(cache=True, nogil=True)
def _merge(core, row):
    """Merges the pair of `row`, which is off the heap, into the next id."""
    a, b = core.left[row], core.right[row]
    new = core.reg[IDS]
    core.reg[IDS] = new + 1
    core.merges[new, 0], core.merges[new, 1] = a, b
    core.counts[new] = core.count[row]
    core.width[new] = core.width[a] + core.width[b]
    core.size[new] = core.size[a] + core.size[b]
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
    core.count[row] = 0
    lists, lefts, rights = _settle_counts(core, a, b, new, seen)
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


# ---- the arena ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _collect(core):
    """Drops rows behind the threshold and stale positions, and closes the gaps.

    Rows are in arena order, so everything moves down in place. The heap is invalid afterwards.
    """
    rows = top = 0
    for row in range(core.reg[ROWS]):
        pair = _pack(core.left[row], core.right[row])
        if not _tracked(core.reg, core.count[row], pair):
            continue
        if core.length[row] > core.count[row]:
            _drop_stale(core, row)
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


@njit(cache=True, nogil=True)
def _over_half(core, used, rows):
    return 2 * used > len(core.arena) or 2 * rows > len(core.left)


@njit(cache=True, nogil=True)
def _make_room(core):
    """Compacts; if more than half is still in use, raises the threshold until it is not."""
    _collect(core)
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
        _collect(core)
        _heapify(core)


@njit(cache=True, nogil=True)
def _lacks_room(core, row):
    """Whether merging `row` could find the arena or the table of pairs full."""
    births = 2 * min(core.count[row], core.reg[IDS]) + 2
    if core.length[row] == SCANNED:
        room = len(core.arena) // 2
    else:
        room = 2 * core.count[row]
    full = core.reg[TOP] + room > len(core.arena)
    return full or core.reg[ROWS] + births > len(core.left)


# ---- entry points -------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def merge_some(core, ids, work):
    """Merges until there are `ids` ids, about `work` positions were read, or no pair is tracked.

    Returns COMPLETE, PAUSED or EXHAUSTED.
    """
    core = borrowed(core)
    core.reg[WORK] = 0
    while core.reg[IDS] < ids:
        if core.reg[WORK] > work:
            return PAUSED
        if core.reg[HEAP] == 0 or not _tracked(core.reg, core.heap_count[0], core.heap_pair[0]):
            return EXHAUSTED
        row = core.heap_row[0]
        if core.count[row] != core.heap_count[0]:
            _replace_top(core, row)
            continue
        if _lacks_room(core, row):
            _make_room(core)
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
    last = len(places) - 1
    for i in range(len(places)):
        prefetch(core.slots, np.int64(places[min(i + AHEAD, last)]))
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
        _make_room(core)
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
def _track_bytes(core):
    """Tracks pairs while every token is one byte: two sequential passes, one dense table.

    Returns whether any fits into half of the room.
    """
    slots, arena, n = core.slots, core.arena, core.reg[SLOTS]
    count = np.zeros((256, 256), np.int64)
    a = slots[0]
    for p in range(1, n):
        b = slots[p]
        if a < 256 and b < 256:
            count[a, b] += 1
        a = b
    while True:
        theta = core.reg[THETA]
        tracked = count >= theta
        rows = tracked.sum()
        if not _over_half(core, (count * tracked).sum(), rows):
            break
        core.reg[THETA] = theta + theta // 4 + 1
    if rows == 0:
        return False
    room = np.full((256, 256), -1, np.int64)
    for left in range(256):
        for right in range(256):
            core.right_tally[right] = count[left, right]
            core.right_seen[right] = right
        _track_rights(core, left, 256)
        room[left] = core.right_room[:256]
        _forget_rooms(core, 256)
    a = slots[0]
    for p in range(1, n):
        b = slots[p]
        if a < 256 and b < 256:
            at = room[a, b]
            if at >= 0:
                arena[at] = p - 1
                room[a, b] = at + 1
        a = b
    return True


@njit(cache=True, nogil=True)
def rebuild(core, theta):
    """Counts all pairs of the corpus as it is now; tracks those with `theta` occurrences or more,
    as far as they fit into half of the arena, but at least the best."""
    core = borrowed(core)
    _compact(core)
    _track_all(core, theta, ANY_PAIR)
    if core.reg[ROWS] == 0 and core.reg[BEST] >= theta:
        _track_all(core, core.reg[BEST], core.reg[BEST_PAIR] + 1)


@njit(cache=True, nogil=True)
def _track_all(core, theta, theta_pair):
    core.reg[TOP] = core.reg[ROWS] = core.reg[HEAP] = core.reg[BEST] = 0
    core.key[:] = EMPTY
    core.reg[THETA], core.reg[THETA_PAIR] = theta, theta_pair
    ids = core.reg[IDS]
    frequency = np.zeros(len(core.width), np.int64)
    for p in range(core.reg[SLOTS]):
        frequency[core.slots[p]] += 1
    low = np.int64(0)
    if ids == 256 and theta_pair == ANY_PAIR:
        if _track_bytes(core):
            low = ids
        else:
            core.reg[THETA] = theta
    while low < ids:
        if _over_half(core, core.reg[TOP], core.reg[ROWS]):
            _make_room(core)
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
        _make_room(core)
    else:
        _heapify(core)
