"""The prefix trie of a token vocabulary, as a sorted list of byte strings: what all questions of
covers are put to.

Sorted by bytes, the tokens that start with a given byte prefix are one contiguous range, the exact
matches first, so a node of the trie is a pair of integers and following a byte is a binary search.
Nothing is built per node, which makes the trie of 128,000 tokens a few tens of milliseconds of work
where an explicit one needs seconds and hundreds of thousands of objects. Several ids may share one
byte string (SentencePiece has 0x20 both as a byte and as the blank); each keeps its own entry.
Special tokens have no bytes and never enter the ranges. Ranges are of the sorted list; `order` maps
its entries to token ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bytelm.compiled import compiled
from bytelm.errors import BytelmError
from bytelm.vocab import BYTES

Range = tuple[int, int]  # [lo, hi) of the sorted tokens: a node of the trie


@compiled
def _first_not_below(flat, offsets, lo, hi, depth, byte):  # type: ignore[no-untyped-def]
    """The first entry in [lo, hi) whose byte at `depth` is >= byte; ended tokens count as -1."""
    while lo < hi:
        middle = (lo + hi) // 2
        at = offsets[middle] + depth
        value = -1 if at >= offsets[middle + 1] else flat[at]
        if value < byte:
            lo = middle + 1
        else:
            hi = middle
    return lo


@compiled
def _narrow(flat, offsets, lo, hi, depth, byte):  # type: ignore[no-untyped-def]
    low = _first_not_below(flat, offsets, lo, hi, depth, byte)
    return low, _first_not_below(flat, offsets, low, hi, depth, byte + 1)


@compiled
def _split(flat, offsets, p, lo, hi, depth, out):  # type: ignore[no-untyped-def]
    """Add p[i] to out[byte of token i at `depth`] for the entries i of [lo, hi)."""
    for i in range(lo, hi):
        out[flat[offsets[i] + depth]] += p[i]


class PrefixTrie:
    """The ordinary tokens of a vocabulary, sorted by bytes.

    vocab_bytes: the bytes of each id, None for special tokens (also for ids that are padding).
    eos_ids: the specials whose probability is that of the end of the text.

    `BytelmError` if no token is ordinary, one has no bytes, or an end id is not a special.

    >>> trie = PrefixTrie([b"a", b"ab", b"b", None], eos_ids={3})
    >>> trie.narrow((0, 3), 0, ord("a"))
    (0, 2)
    >>> trie.exact((0, 2), 1).tolist()
    [0]
    """

    def __init__(self, vocab_bytes: Sequence[bytes | None], eos_ids: Iterable[int] = ()):
        ordinary = [i for i, data in enumerate(vocab_bytes) if data is not None]
        if not ordinary:
            raise BytelmError("the vocabulary has no ordinary token: every entry is None")
        if any(vocab_bytes[i] == b"" for i in ordinary):
            raise BytelmError(
                "the vocabulary has tokens of zero bytes, which every text could hold without "
                "end; give None for tokens that stand for no bytes"
            )
        self.vocab_bytes = list(vocab_bytes)
        self.eos_ids = np.array(sorted(set(eos_ids)), np.int64)
        for eos in self.eos_ids.tolist():
            if not 0 <= eos < len(vocab_bytes) or vocab_bytes[eos] is not None:
                raise BytelmError(f"end-of-text id {eos} is not a special token of the vocabulary")
        ordinary.sort(key=lambda i: vocab_bytes[i])  # type: ignore[arg-type, return-value]
        self.order: NDArray[np.int64] = np.array(ordinary, np.int64)
        strings: list[bytes] = [vocab_bytes[i] for i in ordinary]  # type: ignore[misc]
        self.flat = np.frombuffer(b"".join(strings), np.uint8)
        lengths = np.array([len(data) for data in strings], np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.following = lru_cache(maxsize=1 << 12)(self._following)
        self.lengths: list[int] = lengths.tolist()
        self.longest = max(self.lengths)
        singles = self.flat[self.offsets[:-1][lengths == 1]]
        self.has_all_bytes = len(np.unique(singles)) == BYTES  # each byte alone is a token
        special = [i for i, data in enumerate(vocab_bytes) if data is None]
        self.excluded = np.array(sorted(set(special) - set(self.eos_ids.tolist())), np.int64)

    @property
    def everything(self) -> Range:
        """The range of all ordinary tokens."""
        return 0, len(self.order)

    def narrow(self, token_range: Range, depth: int, byte: int) -> Range:
        """The entries whose byte number `depth` is `byte`, within a range that agrees before it."""
        return _narrow(self.flat, self.offsets, token_range[0], token_range[1], depth, byte)

    def find(self, prefix: bytes) -> Range:
        """The range of tokens that start with `prefix`; empty (lo == hi) if there is none."""
        token_range = self.everything
        for depth, byte in enumerate(prefix):
            token_range = self.narrow(token_range, depth, byte)
        return token_range

    def ended(self, token_range: Range, depth: int) -> int:
        """The end of the tokens of the range that are exactly `depth` bytes long."""
        lo, hi = token_range
        return _first_not_below(self.flat, self.offsets, lo, hi, depth, 0)

    def is_exact(self, entry: int, depth: int) -> bool:
        """Whether the token of this entry is `depth` bytes long: asked of the first of a range."""
        return self.lengths[entry] == depth

    def exact(self, token_range: Range, depth: int) -> NDArray[np.int64]:
        """Ids of the tokens of the range that are exactly `depth` bytes long."""
        return self.order[token_range[0] : self.ended(token_range, depth)]

    def split(self, p: NDArray[np.float64], token_range: Range, depth: int) -> NDArray[np.float64]:
        """(256,) sums of p (V values, in trie order) over the tokens of the range by their byte at
        `depth`; no token of the range may end there. Plain segment sums: differences of running
        sums lose all digits on rare prefixes."""
        out = np.zeros(BYTES)
        _split(self.flat, self.offsets, p, token_range[0], token_range[1], depth, out)
        return out

    def _following(self, token_range: Range, depth: int) -> NDArray[np.bool_]:
        """(256,) which bytes the tokens of the range have at `depth`; some may end there."""
        rest = (self.ended(token_range, depth), token_range[1])
        found = self.split(np.ones(len(self.order)), rest, depth) > 0
        found.flags.writeable = False
        return found

    def count_encodings(self, data: bytes) -> list[int]:
        """For each n = 0..len(data), the number of token strings that spell data[:n] exactly."""
        counts = [1] + [0] * len(data)
        for start in range(len(data)):
            token_range, depth = self.everything, 0
            while counts[start] and depth < len(data) - start and token_range[0] < token_range[1]:
                token_range = self.narrow(token_range, depth, data[start + depth])
                depth += 1
                counts[start + depth] += counts[start] * len(self.exact(token_range, depth))
        return counts

    def count_covers(self, data: bytes) -> int:
        """The number of covers of a byte prefix: token strings whose bytes start with `data` and
        whose last token is the first to reach its end.

        >>> PrefixTrie([b"a", b"ab", b"b"]).count_covers(b"ab")   # ab; a b
        2
        """
        if not data:
            return 1
        counts = self.count_encodings(data)
        total = 0
        for start in range(len(data)):
            lo, hi = self.find(data[start:])
            total += counts[start] * (hi - lo)
        return total
