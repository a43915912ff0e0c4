"""Counts all pairs of a corpus afresh and lists the positions of those worth tracking.

While all tokens are bytes one dense table counts every pair. Later, places and what follows them
are gathered by left token, as many left tokens at a time as fit into the free arena, and the right
neighbours counted in a dense array: exact, without a hash table over all pairs, and the corpus is
only read from front to back.
"""

import numpy as np

from bytelm.compiled import compiled
from bytelm.threads import in_order
from bytelm.tokenizer.intrinsics import borrowed, prefetch
from bytelm.tokenizer.merge_table import (
    ANY_PAIR,
    BEST,
    BEST_PAIR,
    CAP,
    FLAT,
    HEAP,
    IDS,
    ROWS,
    SLOTS,
    THETA,
    THETA_PAIR,
    TOP,
    Core,
    empty_index,
    find_token,
    heapify,
    make_room,
    over_half,
    pack,
    track,
    tracked,
)

AHEAD = 16  # places to fetch in advance


@compiled
def _compact(core):
    """One slot a token again. Returns how often each token occurs."""
    core = borrowed(core)
    slots, width, n = core.slots, core.width, core.reg[SLOTS]
    frequency = np.zeros(len(width), np.int64)
    p = to = np.int64(0)
    while p < n:
        token = slots[p]
        slots[to] = token
        frequency[token] += 1
        to += 1
        p += width[token]
    core.reg[SLOTS], core.reg[FLAT] = to, core.reg[IDS]
    width[:] = 1
    return frequency


@compiled
def _count_rights(core, places, rights):
    last = len(places) - 1
    for i in range(len(places)):
        prefetch(core.slots, np.int64(places[min(i + AHEAD, last)]))
        y = core.slots[np.int64(places[i]) + 1]
        if core.right_counts[y] == 0:
            core.right_seen[rights] = y
            rights += 1
        core.right_counts[y] += 1
    return rights


@compiled
def _track_rights(core, left, rights):
    sep = len(core.width) - 1
    if core.reg[ROWS] + rights > len(core.left):
        make_room(core)
    reg, right_counts, cap = core.reg, core.right_counts, core.reg[CAP] - core.size[left]
    for y in core.right_seen[:rights]:
        count, pair = right_counts[y], pack(left, y)
        right_counts[y] = 0
        if y == sep or core.size[y] > cap:
            continue
        if count > reg[BEST] or (count == reg[BEST] and pair < reg[BEST_PAIR]):
            reg[BEST], reg[BEST_PAIR] = count, pair
        if tracked(reg, count, pair):
            core.right_room[y] = track(core, left, y, count)


@compiled
def _list_rights(core, places):
    for i in range(len(places)):
        y = core.slots[np.int64(places[i]) + 1]
        at = core.right_room[y]
        if at >= 0:
            core.arena[at] = places[i]
            core.right_room[y] = at + 1


@compiled
def _forget_rooms(core, rights):
    for i in range(rights):
        core.right_room[core.right_seen[i]] = -1


@compiled
def _rebuild_scanning(core, left):
    """Tracks all pairs of one left token that is too frequent to gather."""
    found, p, rights = len(core.scratch), np.int64(1), np.int64(0)
    while found == len(core.scratch):
        found, p = find_token(core, left, p, core.reg[SLOTS])
        rights = _count_rights(core, core.scratch[:found], rights)
    _track_rights(core, left, rights)
    found, p = len(core.scratch), np.int64(1)
    while found == len(core.scratch):
        found, p = find_token(core, left, p, core.reg[SLOTS])
        _list_rights(core, core.scratch[:found])
    _forget_rooms(core, rights)


@compiled
def _gather(core, frequency, low, high, at):
    """Writes (place, right neighbour) of every token in [low, high) that may be in a tracked pair
    to the arena, by token, from `at` on. `left_room` tells where each token's part ends."""
    slots, arena, room, theta = core.slots, core.arena, core.left_room, core.reg[THETA]
    for left in range(low, high):
        if frequency[left] >= theta:
            room[left] = at
            at += 2 * frequency[left]
    left = slots[1]
    for p in range(1, core.reg[SLOTS] - 1):
        right = slots[p + 1]
        at = room[left]
        if at >= 0:
            arena[at], arena[at + 1] = p, right
            room[left] = at + 2
        left = right


@compiled
def _rebuild_range(core, frequency, low, high, total):
    """Tracks all pairs whose left token is in [low, high), of which there are `total`."""
    arena, room = core.arena, core.left_room
    right_counts, right_seen, right_room = core.right_counts, core.right_seen, core.right_room
    _gather(core, frequency, low, high, core.reg[TOP] + total)  # lists need no more than `total`
    for left in range(low, high):
        if room[left] < 0:
            continue
        end = room[left]
        start = end - 2 * frequency[left]
        room[left] = -1
        rights = np.int64(0)
        for i in range(start + 1, end, 2):
            y = arena[i]
            if right_counts[y] == 0:
                right_seen[rights] = y
                rights += 1
            right_counts[y] += 1
        _track_rights(core, left, rights)
        for i in range(start, end, 2):
            at = right_room[arena[i + 1]]
            if at >= 0:
                right_room[arena[i + 1]] = at + 1
                arena[at] = arena[i]
        _forget_rooms(core, rights)


@compiled
def _count_bytes(slots, first, end):
    """(256, 256) counts of the pairs that begin in slots [first, end), each a byte."""
    count = np.zeros((256, 256), np.int64)
    a = slots[first]
    for p in range(first + 1, end + 1):
        b = slots[p]
        if a < 256 and b < 256:
            count[a, b] += 1
        a = b
    return count


@compiled
def _track_counted(core, count):
    """Tracks pairs by their counts while every token is one byte.

    Returns whether any fits into half of the room, and where each one's list begins.
    """
    core = borrowed(core)
    room = np.full((256, 256), -1, np.int64)
    while True:
        theta = core.reg[THETA]
        tracked = count >= theta
        rows = tracked.sum()
        if not over_half(core, (count * tracked).sum(), rows):
            break
        core.reg[THETA] = theta + theta // 4 + 1
    if rows == 0:
        return False, room
    for left in range(256):
        for right in range(256):
            core.right_counts[right] = count[left, right]
            core.right_seen[right] = right
        _track_rights(core, left, 256)
        room[left] = core.right_room[:256]
        _forget_rooms(core, 256)
    return True, room


@compiled
def _list_bytes(slots, arena, room, first, end):
    """Writes the places of the pairs that begin in slots [first, end) to their lists."""
    a = slots[first]
    for p in range(first + 1, end + 1):
        b = slots[p]
        if a < 256 and b < 256:
            at = room[a, b]
            if at >= 0:
                arena[at] = p - 1
                room[a, b] = at + 1
        a = b


def rebuild(core: Core, theta: int, *, threads: int = 1) -> None:
    """Counts all pairs of the corpus as it is now; tracks those with `theta` occurrences or more,
    as far as they fit into half of the arena, but at least the best."""
    frequency = _compact(core)
    _track_all(core, frequency, theta, ANY_PAIR, threads)
    if core.reg[ROWS] == 0 and core.reg[BEST] >= theta:
        _track_all(core, frequency, int(core.reg[BEST]), int(core.reg[BEST_PAIR]) + 1, threads)


def _track_all(
    core: Core, frequency: np.ndarray, theta: int, theta_pair: int, threads: int
) -> None:
    _forget_all(core, theta, theta_pair)
    low = 0
    if core.reg[IDS] == 256 and theta_pair == ANY_PAIR:
        if _track_bytes(core, threads):
            low = 256
        else:
            core.reg[THETA] = theta
    _track_tokens(core, frequency, low)


def _track_bytes(core: Core, threads: int) -> bool:
    """Tracks pairs while every token is one byte: two passes, each in a stretch a thread, and one
    dense table. Returns whether any pair fits into half of the room."""
    last = int(core.reg[SLOTS]) - 1
    cuts = [last * n // threads for n in range(threads + 1)]
    stretches = list(zip(cuts, cuts[1:], strict=False))

    def count(n: int) -> np.ndarray:
        return _count_bytes(core.slots, *stretches[n])

    counts = list(in_order(count, range(threads), threads=threads))
    found, room = _track_counted(core, sum(counts))
    if not found:
        return False
    before = np.cumsum([np.zeros_like(room), *counts[:-1]], axis=0)
    rooms = np.where(room < 0, -1, room + before)

    def write(n: int) -> None:
        _list_bytes(core.slots, core.arena, rooms[n], *stretches[n])

    list(in_order(write, range(threads), threads=threads))
    return True


@compiled
def _forget_all(core, theta, theta_pair):
    core = borrowed(core)
    core.reg[TOP] = core.reg[ROWS] = core.reg[HEAP] = core.reg[BEST] = 0
    empty_index(core)
    core.reg[THETA], core.reg[THETA_PAIR] = theta, theta_pair


@compiled
def _track_tokens(core, frequency, low):
    """Tracks the pairs whose left token is `low` or later, and makes the heap of all."""
    core = borrowed(core)
    ids = core.reg[IDS]
    while low < ids:
        if over_half(core, core.reg[TOP], core.reg[ROWS]):
            make_room(core)
        space = (len(core.arena) - core.reg[TOP]) // 3
        if frequency[low] > space:
            _rebuild_scanning(core, low)
            low += 1
            continue
        # two passes over the corpus cost less than memory that was not in use before
        space = min(space, max(frequency[low], core.reg[SLOTS] // 2))
        high, total, theta = low, np.int64(0), core.reg[THETA]
        while high < ids and (frequency[high] < theta or total + frequency[high] <= space):
            total += frequency[high] if frequency[high] >= theta else 0
            high += 1
        if total > 0:
            _rebuild_range(core, frequency, low, high, total)
        low = high
    if over_half(core, core.reg[TOP], core.reg[ROWS]):
        make_room(core)
    else:
        heapify(core)
