"""Byte-pair encoding of every prefix of a piece, by its last token.

For pure byte-pair merges a sequence is canonical exactly if each two neighbours are, so the
encoding of a prefix is the encoding of a shorter prefix and one token, and a piece is encoded by
remembering one last token per position (corollaries I to III of the readme of GitHub's `bpe` crate;
Hayase et al. 2025). Growing a piece by a byte then costs a few cached pair tests instead of a new
run of the merges. Ranks come from a merge list (Hugging Face, GGUF) or from the ids themselves
(tiktoken: two neighbours merge if their concatenation is a token).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from os.path import commonprefix

Rank = Callable[[bytes, bytes], int | None]


class BytePairs:
    """Merges over bytes. `ids` maps the bytes of each token to its id; `rank(a, b)` is the priority
    of joining a and b (lowest first), None if they do not join.

    >>> pairs = BytePairs({b"a": 0, b"b": 1, b"ab": 2}, lambda a, b: {(b"a", b"b"): 0}.get((a, b)))
    >>> pairs.encode(b"aab")
    (0, 2)
    """

    def __init__(self, ids: Mapping[bytes, int], rank: Rank):
        self.ids = ids
        self.rank = rank
        self._longest = max(map(len, ids))
        self.are_neighbours = lru_cache(maxsize=1 << 16)(self._are_neighbours)
        self._short = lru_cache(maxsize=1 << 14)(self._encode)
        self._recent: tuple[bytes, list[int]] = (b"", [0])

    def merge(self, piece: bytes) -> list[bytes]:
        """The tokens of `piece`: the merges run from scratch in order of rank, leftmost first."""
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 1:
            ranks = [self.rank(a, b) for a, b in zip(parts, parts[1:], strict=False)]
            known = [(rank, i) for i, rank in enumerate(ranks) if rank is not None]
            if not known:
                break
            _, at = min(known)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts

    def encode(self, piece: bytes) -> tuple[int, ...] | None:
        """The ids of a piece; None if one of its bytes has no token."""
        return self._short(piece) if len(piece) <= 64 else self._encode(piece)

    def _encode(self, piece: bytes) -> tuple[int, ...] | None:
        lengths = self._last_lengths(piece)
        tokens, end = [], len(piece)
        while end:
            if not lengths[end]:
                return None
            tokens.append(self.ids[piece[end - lengths[end] : end]])
            end -= lengths[end]
        return tuple(reversed(tokens))

    def _last_lengths(self, piece: bytes) -> list[int]:
        """For each n, the length of the last token of the encoding of piece[:n]; 0 = none."""
        known, lengths = self._recent
        shared = len(commonprefix([piece, known]))
        lengths = lengths[: shared + 1]
        for end in range(shared + 1, len(piece) + 1):
            lengths.append(self._last_length(piece, end, lengths))
        self._recent = (piece, lengths)
        return lengths

    def _last_length(self, piece: bytes, end: int, lengths: list[int]) -> int:
        for length in range(min(self._longest, end), 0, -1):
            token = piece[end - length : end]
            if token not in self.ids:
                continue
            start = end - length
            before = piece[start - lengths[start] : start]
            if (not start or before) and self.are_neighbours(before, token):
                return length
        return 0

    def _are_neighbours(self, left: bytes, right: bytes) -> bool:
        """Whether merging left + right gives these two tokens back (left may be empty)."""
        return self.merge(left + right) == ([left, right] if left else [right])
