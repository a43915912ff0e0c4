"""Cut documents into pieces that fit a row, and pack pieces into rows by best fit.

Only what is longer than a row is cut, and then at multiples of the row length from the document's
start. Packing is best-fit decreasing (Ding et al., "Fewer truncations improve language modeling",
2024): the fullest row that still has room takes the piece. Ties go to the piece that comes first
and to the row that was used last, so the layout is a pure function of the lengths. Rows shared by
several pieces hold whole documents or their tails, all of which end with the end symbol.
"""

from bisect import bisect_left, insort

import numpy as np

from bytelm.data.order import Integers


def cut_documents(starts: Integers, *, length: int) -> tuple[Integers, Integers]:
    """(begins, ends) of the pieces of documents that lie between consecutive `starts`.

    >>> cut_documents(np.array([0, 5, 6]), length=2)
    (array([0, 2, 4, 5]), array([2, 4, 5, 6]))
    """
    pieces = -(-np.diff(starts) // length)
    first = np.cumsum(pieces) - pieces
    within = np.arange(int(pieces.sum())) - np.repeat(first, pieces)
    begins = np.repeat(starts[:-1], pieces) + within * length
    return begins, np.minimum(begins + length, np.repeat(starts[1:], pieces))


def pack_documents(
    begins: Integers, ends: Integers, *, length: int
) -> tuple[Integers, Integers, Integers]:
    """(first, begins, ends): row r holds pieces first[r]:first[r + 1] of the reordered pieces."""
    sizes = ends - begins
    row_of = _best_fit(sizes, length=length)
    order = np.lexsort((np.arange(len(sizes)), row_of))
    counts = np.bincount(row_of)
    return np.concatenate([[0], np.cumsum(counts)]), begins[order], ends[order]


def _best_fit(sizes: Integers, *, length: int) -> Integers:
    """The row of each piece. Rows with equal room are kept together: at most `length` groups."""
    row_of = np.empty(len(sizes), dtype=np.int64)
    rows_with: dict[int, list[int]] = {}
    rooms: list[int] = []  # sorted keys of rows_with
    made = 0
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        at = bisect_left(rooms, size)
        if at == len(rooms):
            row, room, made = made, length, made + 1
        else:
            room = rooms[at]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room], rooms[at]
        row_of[piece] = row
        if room > size:
            if room - size not in rows_with:
                insort(rooms, room - size)
                rows_with[room - size] = []
            rows_with[room - size].append(row)
    return row_of
