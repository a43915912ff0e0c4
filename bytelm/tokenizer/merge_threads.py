"""One large merge on several threads, with the result that one thread would have.

A merge at one place reads and writes nothing but the token and its two neighbours. So the places
of a pair are cut into stretches with at least a token between them, or, for a pair that is scanned
for, the corpus at separators; each thread merges one stretch and counts the neighbours in tallies
of its own. Added up in order, the tallies are those of one thread, and so is the place in the arena
at which each thread begins to write. A thread sees the shared arrays through a `Core` in which only
the tallies are its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bytelm.compiled import compiled
from bytelm.tokenizer import merge_table
from bytelm.tokenizer.intrinsics import borrowed
from bytelm.tokenizer.merge_core import (
    _begin,
    _forget,
    _fuse,
    _fuse_range,
    _settle_counts,
    _write_lists,
    _write_range,
)
from bytelm.tokenizer.merge_table import SCANNED, drop_top

LEAST = 1 << 12  # places of a pair that are worth a thread


class LargeMerges:
    """Merges the pair on top of the heap on `threads` threads."""

    def __init__(self, core: merge_table.Core, threads: int):
        self._core, self._pool = core, ThreadPoolExecutor(max(threads - 1, 1))
        self._views = [_view(core) for _ in range(threads)]
        self._corpus_cuts = [0]

    def __enter__(self) -> "LargeMerges":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def rebuilt(self) -> None:
        """To be called when everything was counted afresh: every token fills one slot now, so that
        separators can be told from the inside of tokens, and they stay where they are."""
        slots, separator = self._core.slots, len(self._core.width) - 1
        last, threads = int(self._core.reg[merge_table.SLOTS]) - 1, len(self._views)
        cuts = [0]
        for share in range(1, threads):
            cuts.append(next_token(slots, separator, max(last * share // threads, cuts[-1]), last))
        self._corpus_cuts = [*cuts, last]

    def merge(self) -> None:
        """Merge the top pair, which `merge_core.merge_some` found large."""
        core = self._core
        row, a, b, new = begin(core)
        scanned = core.length[row] == SCANNED
        if scanned:
            cuts = self._corpus_cuts
        else:
            start, length = int(core.start[row]), int(core.length[row])
            cuts = cut_list(core, start, start + length, a, b, len(self._views))
        fused = self._each(lambda n, view: fuse_part(view, scanned, a, b, new, *cuts[n : n + 2]))
        seen = np.int64(0)
        for view, (_, own) in zip(self._views, fused, strict=True):
            seen = add_tallies(core, view, own, seen)
        lists, lefts, rights = settle(core, a, b, new, seen)
        begun = [
            begin_lists(core, view, own, a, new)
            for view, (_, own) in zip(self._views, fused, strict=True)
        ]

        def write(n: int, view: merge_table.Core) -> None:
            stop = cuts[n + 1] if scanned else cuts[n] + fused[n][0]
            write_part(view, scanned, lists, new, cuts[n], stop, begun[n])

        self._each(write)
        end(core, row, lefts, rights)

    def _each(self, work: Callable[[int, merge_table.Core], Any]) -> list[Any]:
        """work(n, view) of every thread; this one does the first."""
        rest = [self._pool.submit(work, n, view) for n, view in enumerate(self._views[1:], start=1)]
        return [work(0, self._views[0]), *(future.result() for future in rest)]


def _view(core: merge_table.Core) -> merge_table.Core:
    """`core` with tallies of its own."""
    return core._replace(
        scratch=np.empty_like(core.scratch),
        left_counts=np.zeros_like(core.left_counts),
        right_counts=np.zeros_like(core.right_counts),
        left_seen=np.zeros_like(core.left_seen),
        right_seen=np.zeros_like(core.right_seen),
        left_room=np.full_like(core.left_room, -1),
        right_room=np.full_like(core.right_room, -1),
    )


@compiled
def begin(core):
    """Takes the top pair off the heap and gives it an id; returns row, pair and id."""
    core = borrowed(core)
    row = core.heap_row[0]
    drop_top(core)
    a, b, new = _begin(core, row)
    return row, a, b, new


@compiled
def next_token(slots, token, p, last):
    """The first slot from p on that holds `token`, at most `last`."""
    while p < last and slots[p] != token:
        p += 1
    return p


@compiled
def cut_list(core, start, end, a, b, parts):
    """Where the places arena[start:end] are cut: the ends of sites before a cut are left of the
    next site, with a slot between."""
    arena, wide = core.arena, core.width[a] + core.width[b]
    cuts = np.empty(parts + 1, np.int64)
    cuts[0], cuts[parts] = start, end
    for part in range(1, parts):
        at = max(start + (end - start) * part // parts, cuts[part - 1])
        while start < at < end and np.int64(arena[at]) <= np.int64(arena[at - 1]) + wide:
            at += 1
        cuts[part] = at
    return cuts


@compiled
def fuse_part(view, scanned, a, b, new, start, end):
    """Merges one stretch; returns (merged places, neighbours seen as in `_fuse`)."""
    view = borrowed(view)
    if scanned:
        return np.int64(0), _fuse_range(view, a, b, new, start + 1, end)
    return _fuse(view, view.arena[start:end], a, b, new, np.int64(0))


@compiled
def add_tallies(core, view, own, seen):
    """Adds what one thread counted to the shared tallies; returns the neighbours seen so far."""
    core, view = borrowed(core), borrowed(view)
    lefts, rights = seen >> 32, seen & 0xFFFFFFFF
    for x in view.left_seen[: own >> 32]:
        if core.left_counts[x] == 0:
            core.left_seen[lefts] = x
            lefts += 1
        core.left_counts[x] += view.left_counts[x]
    for y in view.right_seen[: own & 0xFFFFFFFF]:
        if core.right_counts[y] == 0:
            core.right_seen[rights] = y
            rights += 1
        core.right_counts[y] += view.right_counts[y]
    return lefts << 32 | rights


@compiled
def settle(core, a, b, new, seen):
    """`_settle_counts` of the shared tallies."""
    return _settle_counts(borrowed(core), a, b, new, seen)


@compiled
def begin_lists(core, view, own, a, new):
    """Where one thread begins to write the lists of the new pairs, and the next one after it;
    clears the thread's tallies. Returns the neighbours seen, `new` too where it follows itself."""
    core, view = borrowed(core), borrowed(view)
    lefts, rights = own >> 32, own & 0xFFFFFFFF
    twins = view.left_counts[new]  # here the site to the right was merged after being counted
    view.right_counts[a] -= twins
    if twins > 0:
        view.right_counts[new] = twins
        view.right_seen[rights] = new
        rights += 1
    for x in view.left_seen[:lefts]:
        room = core.left_room[x]
        view.left_room[x] = room
        if room >= 0:
            core.left_room[x] = room + view.left_counts[x]
        view.left_counts[x] = 0
    for y in view.right_seen[:rights]:
        room = core.right_room[y]
        view.right_room[y] = room
        if room >= 0:
            core.right_room[y] = room + view.right_counts[y]
        view.right_counts[y] = 0
    return lefts << 32 | rights


@compiled
def write_part(view, scanned, lists, new, start, end, own):
    """Writes the lists of one stretch, and forgets where it wrote."""
    view = borrowed(view)
    if lists and scanned:
        _write_range(view, new, start + 1, end)
    elif lists:
        _write_lists(view, view.arena[start:end], new)
    for x in view.left_seen[: own >> 32]:
        view.left_room[x] = -1
    for y in view.right_seen[: own & 0xFFFFFFFF]:
        view.right_room[y] = -1


@compiled
def end(core, row, lefts, rights):
    """The merge is done."""
    _forget(borrowed(core), row, lefts, rights)


def large(threads: int) -> int:
    """Places from which a merge is `merge_core.LARGE`; 0 for one thread."""
    return LEAST * threads if threads > 1 else 0
