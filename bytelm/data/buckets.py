"""Length buckets: rows of like length side by side, so that little of a batch is padding.

A row belongs to the narrowest of the widths length, length / 2, length / 4, ... that holds it. An
epoch is made of blocks of rows of one bucket: rows are permuted within their bucket, then full
blocks are permuted among one another, both keyed, so that the order stays a pure function of
(seed, epoch, index). What does not fill a block comes at the end of the epoch, narrow rows first.
A batch of as many rows as a block, cut where blocks are cut, is all of one width; any other batch
is right too, only wider than need be.
"""

import numpy as np

from bytelm.data.order import Integers, permute

NARROWEST = 16  # no bucket below this width


def bucket_widths(length: int) -> Integers:
    """The widths of buckets, ascending.

    >>> bucket_widths(100).tolist()
    [25, 50, 100]
    """
    widths = [length]
    while widths[-1] % 2 == 0 and widths[-1] >= 2 * NARROWEST:
        widths.append(widths[-1] // 2)
    return np.array(widths[::-1])


class Buckets:
    """The order of rows of these `sizes`, in blocks of `block` rows of one bucket."""

    def __init__(self, sizes: Integers, *, length: int, block: int):
        self.widths = bucket_widths(length)
        self._block = block
        bucket = np.searchsorted(self.widths, sizes)
        self._rows = np.argsort(bucket, kind="stable")
        self._counts = np.bincount(bucket, minlength=len(self.widths))
        self._full = self._counts // block
        self._first_row, self._first_block, self._first_left = (
            np.cumsum(n) - n for n in (self._counts, self._full, self._counts % block)
        )

    def width(self, longest: int) -> int:
        """The width of rows of which the longest is this long."""
        return int(self.widths[np.searchsorted(self.widths, longest)])

    def rows(self, indices: Integers, *, key: tuple[object, ...]) -> Integers:
        """The rows at these places of the order named by `key`."""
        in_blocks = int(self._full.sum()) * self._block
        bucket, place = np.empty_like(indices), np.empty_like(indices)
        early = indices < in_blocks
        block, offset = np.divmod(indices[early], self._block)
        block = permute(block, size=int(self._full.sum()), key=(*key, "blocks"))
        bucket[early] = _holder(self._first_block, self._full, block)
        place[early] = (block - self._first_block[bucket[early]]) * self._block + offset
        left = indices[~early] - in_blocks
        bucket[~early] = _holder(self._first_left, self._counts % self._block, left)
        full = self._full[bucket[~early]] * self._block
        place[~early] = full + left - self._first_left[bucket[~early]]
        for b in np.unique(bucket).tolist():
            here, size = bucket == b, int(self._counts[b])
            place[here] = permute(place[here], size=size, key=(*key, b))
        return self._rows[self._first_row[bucket] + place]


def _holder(first: Integers, count: Integers, number: Integers) -> Integers:
    """Which of consecutive ranges, `count` numbers from `first` on each, holds each number."""
    held = np.flatnonzero(count)
    return held[np.searchsorted(first[held], number, side="right") - 1]
