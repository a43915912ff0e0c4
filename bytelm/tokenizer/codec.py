"""Bytes to internal BPE ids and back, given the merges alone.

Internal ids are 0-255 for the bytes and 256 + i for what the i-th merge makes; how a file numbers
its tokens and what specials it has is `BinaryBPE`'s business. Merges of an exact trainer are
encoded by longest match with the pair test; any other list of merges (a token reachable in two ways
or not at all, tokens glued together from several vocabularies) by rank with a heap: slower, same
meaning.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property, partial

import numpy as np

from bytelm.errors import BytelmError
from bytelm.threads import in_order
from bytelm.tokenizer import codec_core
from bytelm.tokenizer.codec_tables import ID_BITS, Tables, packed, pair_tables, tries

_LEAST_PART = 1 << 18  # bytes, or ids, that are worth a thread


def _even(size: int, parts: int) -> list[tuple[int, int]]:
    """(start, end) of `parts` parts (at least one) of nearly equal size."""
    cuts = [size * n // max(parts, 1) for n in range(max(parts, 1) + 1)]
    return list(zip(cuts, cuts[1:], strict=False))


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
        if len(known) + 256 > 1 << ID_BITS:
            raise BytelmError(f"{len(known)} merges are too many: ids have {ID_BITS} bits")
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
        """The merges by pair: parts of each token, bit filter, hash table."""
        parts = packed(self._left, self._right)
        return parts, *pair_tables(parts)

    @cached_property
    def _by_rank(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What `encode_by_rank` reads."""
        return *self._pairs, np.concatenate([np.arange(256), self._merge_ids]).astype(np.uint32)

    @cached_property
    def exact(self) -> bool:
        """Whether the fast encoder applies: every token is reached from its own bytes."""
        distinct = np.array_equal(self._merge_ids, np.arange(256, len(self)))
        return distinct and codec_core.all_reachable(*self._by_rank, self.start, self.text)

    @cached_property
    def _tables(self) -> Tables:
        ids = range(len(self))
        order = np.array(sorted(ids, key=[self.token(i) for i in ids].__getitem__), np.int64)
        entry, trie, prefix = tries(order, self.start, self.text)
        return Tables(*self._pairs, packed(prefix, self.lengths), entry, trie)

    def encode(self, data: bytes, *, threads: int = 1) -> np.ndarray:
        """(n,) uint32 internal ids of any bytes; the same for any number of threads."""
        given = np.frombuffer(data, np.uint8)
        if not self.exact:
            out = np.empty(len(given), np.uint32)
            return out[: codec_core.encode_by_rank(*self._by_rank, given, out)]
        parts = _even(len(given), min(threads, len(given) // _LEAST_PART))
        if len(parts) == 1:
            return self._encoded(given)
        self._encoded(given[:0])  # builds the tables once, before threads would
        pieces = [given[start:end] for start, end in parts]
        return self._joined(in_order(self._encoded, pieces, threads=threads))

    def _encoded(self, given: np.ndarray) -> np.ndarray:
        out = np.empty(len(given), np.uint32)
        return out[: codec_core.encode(self._tables, given, out)]

    def encode_pieces(self, pieces: Sequence[bytes]) -> list[np.ndarray]:
        """`encode` of each, in one call of the compiled core."""
        if not self.exact:
            return [self.encode(piece) for piece in pieces]
        given = np.frombuffer(b"".join(pieces), np.uint8)
        bounds = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        out, counts = np.empty(len(given), np.uint32), np.empty(len(pieces), np.int64)
        total = codec_core.encode_pieces(self._tables, given, bounds, out, counts)
        return np.split(out[:total].copy(), np.cumsum(counts[:-1]))

    def _joined(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """The encoding of bytes whose parts were encoded apart.

        Only tokens near the cuts can be wrong. So some on both sides of each are encoded again,
        together, and more of them until both neighbours of the new ones fit: then all tokens fit
        beside one another, which is what makes an encoding the right one (`codec_core`).
        """
        done: list[np.ndarray] = []
        for part in parts:
            if not done:
                done.append(part)
                continue
            again = 16
            while True:
                if again >= len(done[-1]):
                    done = [np.concatenate(done)]
                left, right = done[-1][:-again], part[again:]
                near = np.concatenate([done[-1][-again:], part[:again]])
                middle = self._encoded(np.frombuffer(self._spelled(near), np.uint8))
                if self._fits(left, middle) and self._fits(middle, right):
                    break
                again *= 2
            done[-1:] = [left, middle, right]
            done = [ids for ids in done if len(ids)]
        return np.concatenate(done)

    def _fits(self, left: np.ndarray, right: np.ndarray) -> bool:
        """Whether `right` may follow `left`; anything may follow nothing."""
        if not len(left) or not len(right):
            return True
        return codec_core.compatible(self._tables, left[-1], right[0])

    def _spelled(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self.token, ids.tolist()))

    def decode(self, ids: np.ndarray, *, internal: np.ndarray, threads: int = 1) -> bytes:
        """The bytes of a file's ids, which `internal` maps to internal ids, SPECIAL or UNKNOWN."""
        parts = [ids[a:b] for a, b in _even(len(ids), min(threads, len(ids) // _LEAST_PART))]
        measure = partial(codec_core.decoded_length, internal, self.start)
        sizes = list(in_order(measure, parts, threads=len(parts)))
        for part, size in zip(parts, sizes, strict=True):
            if size < 0:
                raise BytelmError(
                    f"there is no id {part[-1 - size]}; {len(internal)} ids are known"
                )
        ends = np.cumsum(sizes)
        out = np.empty(ends[-1], np.uint8)

        def write(n: int) -> None:
            into = out[ends[n] - sizes[n] : ends[n]]
            codec_core.decode(internal, self.start, self.text, self._heads, parts[n], into)

        if len(parts) > 1:
            _ = self._heads  # once, before threads would
        for _ in in_order(write, range(len(parts)), threads=len(parts)):
            pass
        return out.tobytes()

    @cached_property
    def _heads(self) -> np.ndarray:
        """(V,) uint64: the first eight bytes of each token, in memory order."""
        padded = np.concatenate([self.text, np.zeros(8, np.uint8)])
        return padded[self.start[:-1, None] + np.arange(8)].view(np.uint64).ravel()
