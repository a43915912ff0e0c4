"""The compiled core of BPE training: one merge after the other, with exact counts.

One fact makes it fast: a pair can only lose occurrences once its younger token exists. So the heap
may be refreshed lazily, on popping; and pairs born behind a threshold in merge order can be
forgotten until no tracked pair is before it; then everything is counted afresh (`merge_rebuild`). A
merge counts its neighbours in dense arrays and touches the table of tracked pairs once per
distinct neighbour, not once per site. Merge order, ties included, is that of Hugging Face
`tokenizers`: higher count, then smaller left id, then smaller right id. Nothing is sampled.
"""

import numpy as np

from bytelm.compiled import compiled
from bytelm.tokenizer.intrinsics import borrowed, prefetch
from bytelm.tokenizer.merge_table import (
    FLAT,
    HEAP,
    IDS,
    ROWS,
    SCANNED,
    SLOTS,
    TOP,
    WORK,
    drop_top,
    find_token,
    lose,
    make_room,
    pack,
    push,
    replace_top,
    track,
    tracked,
)

PAUSED, EXHAUSTED, COMPLETE, LARGE = range(4)  # why `merge_some` returned
AHEAD = 16  # places to fetch in advance: they are far apart, and the next one is known


@compiled
def _find_pairs(core, a, b, p, n):
    """Fills `scratch` with non-overlapping starts of (a, b) from token start `p` up to slot `n`.

    Returns (found, where to go on); the end is reached when found < len(scratch).
    """
    slots, scratch = core.slots, core.scratch
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


@compiled
def _find_pairs_flat(core, a, b, p, n):
    """The same while every token fills one slot: no width decides where to look next."""
    slots, scratch, last = core.slots, core.scratch, n - 1
    found = 0
    while p < last and found < len(scratch):
        if slots[p] == a and slots[p + 1] == b:
            scratch[found] = p
            found += 1
            p += 1
        p += 1
    return found, p if p < last else n


@compiled
def _fuse(core, places, a, b, new, seen):
    """Merges at `places`, in order; counts the neighbours. Keeps the merged places in front.

    Returns (merged places, distinct left neighbours << 32 | distinct right neighbours).
    """
    slots, sep = core.slots, len(core.width) - 1
    left_counts, right_counts = core.left_counts, core.right_counts
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
        if left_counts[x] == 0:
            core.left_seen[lefts] = x
            lefts += 1
        left_counts[x] += 1
        if right_counts[y] == 0:
            core.right_seen[rights] = y
            rights += 1
        right_counts[y] += 1
        places[kept] = p
        kept += 1
    return kept, lefts << 32 | rights


@compiled
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


@compiled
def _settle_counts(core, a, b, new, seen):
    """Takes the counted neighbours from the pairs they were in, and tracks the new pairs.

    Returns whether any new pair needs a list, and the numbers of neighbours seen.
    """
    sep, first_row, lists = len(core.width) - 1, core.reg[ROWS], False
    lefts, rights = seen >> 32, seen & 0xFFFFFFFF
    left_counts, right_counts, reg = core.left_counts, core.right_counts, core.reg
    for x in core.left_seen[:lefts]:
        if x != sep and x != new:
            lose(core, pack(x, a), left_counts[x])
    for y in core.right_seen[:rights]:
        if y != sep:
            lose(core, pack(b, y), right_counts[y])
    twins = left_counts[new]  # here the site to the right was merged after being counted
    right_counts[a] -= twins
    if twins > 0:
        right_counts[new] = twins
        core.right_seen[rights] = new
        rights += 1
    for x in core.left_seen[:lefts]:
        count = left_counts[x]
        left_counts[x] = 0
        if x != sep and x != new and tracked(reg, count, pack(x, new)):
            core.left_room[x] = track(core, x, new, count)
            lists |= core.left_room[x] >= 0
    for y in core.right_seen[:rights]:
        count = right_counts[y]
        right_counts[y] = 0
        if y != sep and tracked(reg, count, pack(new, y)):
            core.right_room[y] = track(core, new, y, count)
            lists |= core.right_room[y] >= 0
    for row in range(first_row, reg[ROWS]):
        push(core, row)
    return lists, lefts, rights


@compiled
def _fuse_range(core, a, b, new, first, end):
    """Finds and merges (a, b) from token start `first` up to slot `end`; returns as `_fuse` does,
    without the places, which are not kept."""
    flat = core.reg[FLAT] == new
    found, p, seen = len(core.scratch), first, np.int64(0)
    while found == len(core.scratch):
        if flat:
            found, p = _find_pairs_flat(core, a, b, p, end)
        else:
            found, p = _find_pairs(core, a, b, p, end)
        _, seen = _fuse(core, core.scratch[:found], a, b, new, seen)
    return seen


@compiled
def _write_range(core, new, first, end):
    """`_write_lists` for all places of `new` from token start `first` up to slot `end`."""
    found, p = len(core.scratch), first
    while found == len(core.scratch):
        found, p = find_token(core, new, p, end)
        _write_lists(core, core.scratch[:found], new)


@compiled
def _begin(core, row):
    """Gives the pair of `row`, which is off the heap, the next id; returns the pair and the id."""
    a, b = core.left[row], core.right[row]
    new = core.reg[IDS]
    core.reg[IDS] = new + 1
    core.merges[new, 0], core.merges[new, 1] = a, b
    core.counts[new] = core.count[row]
    core.width[new] = core.width[a] + core.width[b]
    core.size[new] = core.size[a] + core.size[b]
    scanned = core.length[row] == SCANNED
    core.reg[WORK] += core.reg[SLOTS] if scanned else core.length[row]
    return a, b, new


@compiled
def _forget(core, row, lefts, rights):
    """Ends a merge: the row is used up, and no neighbour has a place in the arena to write to."""
    core.length[row] = 0
    core.count[row] = 0
    for i in range(lefts):
        core.left_room[core.left_seen[i]] = -1
    for i in range(rights):
        core.right_room[core.right_seen[i]] = -1


@compiled
def _merge(core, row):
    """Merges the pair of `row`, which is off the heap, into the next id."""
    a, b, new = _begin(core, row)
    start, length = core.start[row], core.length[row]
    kept = np.int64(0)
    if length == SCANNED:
        seen = _fuse_range(core, a, b, new, np.int64(1), core.reg[SLOTS])
    else:
        kept, seen = _fuse(core, core.arena[start : start + length], a, b, new, np.int64(0))
    lists, lefts, rights = _settle_counts(core, a, b, new, seen)
    if lists and length == SCANNED:
        _write_range(core, new, np.int64(1), core.reg[SLOTS])
    elif lists:
        _write_lists(core, core.arena[start : start + kept], new)
    _forget(core, row, lefts, rights)


@compiled
def _lacks_room(core, row):
    """Whether merging `row` could find the arena or the table of pairs full."""
    births = 2 * min(core.count[row], core.reg[IDS]) + 2
    if core.length[row] == SCANNED:
        room = len(core.arena) // 2
    else:
        room = 2 * core.count[row]
    full = core.reg[TOP] + room > len(core.arena)
    return full or core.reg[ROWS] + births > len(core.left)


@compiled
def merge_some(core, ids, work, large):
    """Merges until there are `ids` ids, about `work` positions were read, no pair is tracked, or
    the next merge has `large` places or more or is to be scanned for (0: no merge is too large).

    Returns COMPLETE, PAUSED, EXHAUSTED or LARGE.
    """
    core = borrowed(core)
    core.reg[WORK] = 0
    while core.reg[IDS] < ids:
        if core.reg[WORK] > work:
            return PAUSED
        if core.reg[HEAP] == 0 or not tracked(core.reg, core.heap_count[0], core.heap_pair[0]):
            return EXHAUSTED
        row = core.heap_row[0]
        if core.count[row] != core.heap_count[0]:
            replace_top(core, row)
            continue
        if _lacks_room(core, row):
            make_room(core)
            if _lacks_room(core, core.heap_row[0]):
                return EXHAUSTED
            continue
        if large and (core.length[row] >= large or core.length[row] == SCANNED):
            return LARGE
        drop_top(core)
        _merge(core, row)
    return COMPLETE
