"""Bytes to internal BPE ids and back, given the merges alone.

Internal ids are 0-255 for the bytes and 256 + i for what the i-th merge makes; how a file numbers
its tokens and what specials it has is `BinaryBPE`'s business. Merges of an exact trainer are
encoded by longest match with the pair test; any other list of merges (a token reachable in two ways
or not at all, tokens glued together from several vocabularies) by rank with a heap: slower, same
meaning.
"""

from functools import cached_property

import numpy as np

from bytelm.errors import BytelmError
from bytelm.tokenizer import codec_core

_VERDICTS = 1 << 15


class Codec:
    """Exact BPE over bytes for one list of merges, (M, 2) internal ids.

    >>> Codec(np.array([[97, 98], [256, 99]])).encode(b"abcab").tolist()
    [257, 256]
    """

    def __init__(self, merges: np.ndarray):
        self.merges = np.ascontiguousarray(merges, np.int64).reshape(-1, 2)
        known = np.arange(256, 256 + len(self.merges))
        if (self.merges < 0).any() or (self.merges >= known[:, None]).any():
            raise BytelmError("a merge names a token that no earlier merge makes")
        own = np.arange(256)
        self._left = np.concatenate([own, self.merges[:, 0]]).astype(np.int32)
        self._right = np.concatenate([own, self.merges[:, 1]]).astype(np.int32)
        self.start, self.text = self._spell()
        self._merge_ids = self._number_by_text()

    def _spell(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each token's bytes start, and all of them one after another."""
        length = np.ones(256 + len(self.merges), np.int64)
        for token, (left, right) in enumerate(self.merges.tolist(), 256):
            length[token] = length[left] + length[right]
        start = np.concatenate([[0], np.cumsum(length)])
        if start[-1] > 1 << 31:
            raise BytelmError(f"the tokens are {start[-1]} bytes long in all; 2 GiB is the limit")
        text = np.empty(start[-1], np.uint8)
        codec_core.spell(self._left, self._right, start, text)
        return start, text

    def _number_by_text(self) -> np.ndarray:
        """The id of each merge's token: its own, or of the earlier token with the same bytes."""
        ids = np.arange(256, 256 + len(self.merges))
        first: dict[bytes, int] = {}
        for token in ids.tolist():
            ids[token - 256] = first.setdefault(self.token(token), token)
        return ids

    def __len__(self) -> int:
        return len(self._left)

    def token(self, internal: int) -> bytes:
        """The bytes of one internal id."""
        return self.text[self.start[internal] : self.start[internal + 1]].tobytes()

    @cached_property
    def lengths(self) -> np.ndarray:
        """(V,) bytes of each token."""
        return np.diff(self.start)

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hash table of the merges: pair, rank, id of the token it makes."""
        size = 1 << max(10, (4 * len(self.merges)).bit_length())
        key, rank = np.empty(size, np.int64), np.full(size, 256, np.int32)
        codec_core.fill_pairs(self._left, self._right, key, rank)
        made = self._merge_ids[rank - 256] if len(self.merges) else rank
        return key, rank, made.astype(np.int32)

    @cached_property
    def exact(self) -> bool:
        """Whether the fast encoder applies: every token is reached from its own bytes."""
        distinct = np.array_equal(self._merge_ids, np.arange(256, len(self)))
        return distinct and codec_core.all_reachable(*self._pairs, self.start, self.text)

    @cached_property
    def _tables(self) -> codec_core.Tables:
        ids = range(len(self))
        order = np.array(sorted(ids, key=[self.token(i) for i in ids].__getitem__), np.int64)
        prefix = np.full(len(self), codec_core.NONE, np.int32)
        size = 1 << 12
        used = -1
        while used < 0:
            size *= 2
            entry, trie = np.zeros(1 << 16, np.uint64), np.zeros(size, np.uint64)
            best = np.zeros(size, np.int32)
            used = codec_core.build_trie(order, self.start, self.text, entry, trie, best, prefix)
        return codec_core.Tables(
            left=self._left,
            right=self._right,
            length=self.lengths.astype(np.int32),
            start=self.start,
            text=self.text,
            prefix=prefix,
            pair_key=self._pairs[0],
            pair_id=self._pairs[1],
            entry=entry,
            trie=trie[:used],
            best=best[:used],
            verdict=np.full(_VERDICTS, ~np.uint64(0)),
        )

    def encode(self, data: bytes) -> np.ndarray:
        """(n,) uint32 internal ids of any bytes."""
        given = np.frombuffer(data, np.uint8)
        out = np.empty(len(given), np.uint32)
        if self.exact:
            count = codec_core.encode(self._tables, given, out)
        else:
            count = codec_core.encode_by_rank(*self._pairs, given, out)
        return out[:count]

    def decode(self, ids: np.ndarray, *, internal: np.ndarray) -> bytes:
        """The bytes of a file's ids, which `internal` maps to internal ids, SPECIAL or UNKNOWN."""
        size = codec_core.decoded_length(internal, self.start, ids)
        if size < 0:
            raise BytelmError(f"there is no id {ids[-1 - size]}; {len(internal)} ids are known")
        out = np.empty(size + 8, np.uint8)
        codec_core.decode(internal, self.start, self.text, self._heads, ids, out)
        return out[:size].tobytes()

    @cached_property
    def _heads(self) -> np.ndarray:
        """(V,) uint64: the first eight bytes of each token, in memory order."""
        padded = np.concatenate([self.text, np.zeros(8, np.uint8)])
        return padded[self.start[:-1, None] + np.arange(8)].view(np.uint64).ravel()
