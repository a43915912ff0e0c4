"""Trains BPE merges on raw bytes: cuts documents into pieces, plans memory, drives the core.

A piece is one BPE word; nothing merges across its ends. Pieces of 8 KiB cost nothing (the core does
not depend on their length) and bound the longest token. Merges are found in bounded steps, so that
progress can be shown, a checkpoint written and Ctrl-C obeyed between them. A run can start from
merges found earlier: the corpus is encoded with them, which is the state training had then.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bytelm.errors import BytelmError
from bytelm.tokenizer import merge_core, merge_rebuild, merge_table
from bytelm.tokenizer.codec import Codec
from bytelm.tokenizer.formats import section_starts

_STEP = 20_000_000  # positions read between two looks at the clock; about a third of a second
_ROW_BYTES = 104  # of the table of tracked pairs and its heap
_ROWS_PER_ID = 24
_BLOCK_BYTES = 64 << 20  # above what malloc keeps for itself when freed
_FIXED_BYTES = 168 << 20  # interpreter, numpy, numba and the compiled core
MAX_IDS = 1 << 24


@dataclass(frozen=True)
class Merges:
    """What training found. Ids are internal: 0-255 the bytes, 256 + i the i-th merge."""

    merges: np.ndarray  # (M, 2) uint32
    counts: np.ndarray  # (M,) int64: occurrences when merged
    corpus_bytes: int
    corpus_pieces: int
    corpus_sha256: str


@dataclass(frozen=True)
class PieceRules:
    """How documents become pieces.

    `length` in bytes; `sections` also cuts where a section of an executable starts; `entropy` keeps
    pieces between two values in bits per byte; `unique` counts repeated pieces once.
    """

    length: int = 8192
    sections: bool = False
    entropy: tuple[float, float] | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise BytelmError(f"piece_length must be at least 1 byte, not {self.length}")
        if self.entropy and not 0 <= self.entropy[0] < self.entropy[1] <= 8:
            raise BytelmError(f"entropy must be two values, 0 <= low < high <= 8: {self.entropy}")

    @property
    def selective(self) -> bool:
        return self.unique or self.entropy is not None

    def spans(self, data: bytes) -> Iterator[bytes]:
        """The stretches of a document that are cut into pieces from their beginning."""
        starts = sorted({0, *(section_starts(data) if self.sections else ())})
        for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
            if end > start:
                yield data[start:end]

    def kept(self, data: bytes, seen: set[bytes]) -> bytes:
        """`data` without the pieces that are to be left out; only the last piece may be short."""
        if not self.selective:
            return data
        pieces = (data[i : i + self.length] for i in range(0, len(data), self.length))
        return b"".join(piece for piece in pieces if self._keeps(piece, seen))

    def _keeps(self, piece: bytes, seen: set[bytes]) -> bool:
        if self.entropy and not self.entropy[0] <= bits_per_byte(piece) <= self.entropy[1]:
            return False
        if self.unique:
            digest = hashlib.blake2b(piece, digest_size=16).digest()
            if digest in seen:
                return False
            seen.add(digest)
        return True


def bits_per_byte(data: bytes) -> float:
    """Order-0 entropy: 0 for one repeated byte, 8 for uniform ones.

    >>> bits_per_byte(bytes(range(256)))
    8.0
    """
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    share = counts[counts > 0] / len(data)
    return abs(float(-(share * np.log2(share)).sum()))


def train_merges(
    documents: Iterable[bytes],
    *,
    ids: int,
    rules: PieceRules | None = None,
    piece_length: int = 8192,
    max_token_length: int | None = None,
    min_frequency: int = 2,
    max_memory: int | None = None,
    start: np.ndarray | None = None,
    start_sha256: str | None = None,
    least_bytes: int = 0,
    on_progress: Callable[[np.ndarray, str], None] | None = None,
) -> Merges:
    """BPE merges of the documents, in order, until there are `ids` ids (bytes included).

    Identical to Hugging Face `tokenizers` on the same pieces, ties included. Fewer merges come back
    if no pair occurs `min_frequency` times any more. `on_progress(merges so far, corpus_sha256)` is
    called every third of a second or so; what it raises ends training. `start` are merges to go on
    from, `start_sha256` the digest the corpus must have then. `least_bytes` is a known lower bound
    of the corpus, so that too much data is refused before it is read.
    """
    rules = rules or PieceRules(length=piece_length)
    _check(ids, max_token_length, min_frequency)
    if max_memory is not None and max_memory < _FIXED_BYTES:
        raise BytelmError(f"max_memory must be at least {_FIXED_BYTES >> 20} MiB")
    corpus = _Corpus(documents, rules, ids, max_memory, max_token_length, least_bytes)
    if start_sha256 not in (None, corpus.sha256):
        raise BytelmError(
            "the checkpoint is of other data, or of other rules for pieces and tokens: "
            f"its digest is {start_sha256}, this corpus has {corpus.sha256}"
        )
    core = corpus.core(max_token_length or corpus.bytes, start)
    first = max(min_frequency, 1)
    theta = max(first, int(core.reg[merge_table.SLOTS]) // ids)
    while True:
        merge_rebuild.rebuild(core, theta)
        status = merge_core.PAUSED
        while status == merge_core.PAUSED:
            status = merge_core.merge_some(core, ids, _STEP)
            if on_progress:
                on_progress(core.merges[256 : core.reg[merge_table.IDS]], corpus.sha256)
        complete = core.reg[merge_table.THETA_PAIR] == merge_table.ANY_PAIR
        lowest = complete and core.reg[merge_table.THETA] == first
        if status == merge_core.COMPLETE or lowest:
            break
        theta = max(first, _next_threshold(core, ids))
    found = slice(256, int(core.reg[merge_table.IDS]))
    return Merges(
        core.merges[found].copy(),
        core.counts[found].copy(),
        corpus.bytes,
        corpus.pieces,
        corpus.sha256,
    )


def _next_threshold(core: merge_table.Core, ids: int) -> int:
    """Counts fall about as 1 / id: half of what the last merge should have, so that this recount is
    the last, as far as the lists fit."""
    reached = int(core.reg[merge_table.THETA])
    return min(reached * int(core.reg[merge_table.IDS]) // (2 * ids), reached // 2)


def _check(ids: int, max_token_length: int | None, min_frequency: int) -> None:
    if not 256 <= ids <= MAX_IDS:
        raise BytelmError(f"a vocabulary has between 256 and {MAX_IDS} byte tokens, not {ids}")
    if max_token_length is not None and max_token_length < 1:
        raise BytelmError(f"max_token_length must be at least 1 byte, not {max_token_length}")
    if min_frequency < 0:
        raise BytelmError(f"min_frequency cannot be negative: {min_frequency}")


def memory_needed(corpus_bytes: int, ids: int) -> int:
    """Bytes of memory below which `train_merges` refuses to start on so much data."""
    item = 2 if ids <= 0xFFFF else 4
    return _FIXED_BYTES + _rows(corpus_bytes, ids) * _ROW_BYTES + corpus_bytes * (item + 1)


def _rows(corpus_bytes: int, ids: int) -> int:
    return max(4 * ids + 16, min(_ROWS_PER_ID * ids, corpus_bytes))


class _Store:
    """Byte strings in large blocks, which the operating system gets back as they are drained: of
    freed documents much would stay with the process, and count against the budget."""

    def __init__(self) -> None:
        self._blocks: list[tuple[np.ndarray, list[slice]]] = []
        self._free = 0

    def add(self, span: bytes) -> None:
        if len(span) > self._free:
            self._free = max(len(span), _BLOCK_BYTES)
            self._blocks.append((np.empty(self._free, np.uint8), []))
        block, places = self._blocks[-1]
        at = len(block) - self._free
        places.append(slice(at, at + len(span)))
        block[places[-1]] = np.frombuffer(span, np.uint8)
        self._free -= len(span)

    def drain(self) -> Iterator[np.ndarray]:
        """All of them in order, once."""
        self._blocks.reverse()
        while self._blocks:
            block, places = self._blocks.pop()
            yield from map(block.__getitem__, places)


class _Corpus:
    """Reads documents into memory within a budget, and lays them out as slots for the core."""

    def __init__(
        self,
        documents: Iterable[bytes],
        rules: PieceRules,
        ids: int,
        max_memory: int | None,
        max_token_length: int | None,
        least_bytes: int,
    ):
        self.rules, self.ids = rules, ids
        self.budget = max_memory or int(0.8 * available_memory())
        self._refuse_beyond_budget(least_bytes)
        self.bytes = self.pieces = 0
        self._spans = _Store()
        digest, seen = hashlib.sha256(f"{rules} {max_token_length}".encode()), set[bytes]()
        for data in documents:
            for span in rules.spans(data):
                span = rules.kept(span, seen)
                self.bytes += len(span)
                self._refuse_beyond_budget(self.bytes)
                self._spans.add(span)
                self.pieces += -(-len(span) // rules.length)
                digest.update(len(span).to_bytes(8, "little") + span)
        self.sha256 = digest.hexdigest()
        if self.bytes == 0:
            raise BytelmError("there is nothing to train on: no documents, or all of them empty")

    def _refuse_beyond_budget(self, size: int) -> None:
        needed = memory_needed(size, self.ids)
        if needed > self.budget:
            raise BytelmError(
                f"training {self.ids} tokens on {size >> 20} MiB or more takes at least "
                f"{needed >> 20} MiB of memory, and {self.budget >> 20} MiB may be used: give less "
                "data, or raise the limit"
            )

    def core(self, max_token_length: int, start: np.ndarray | None) -> merge_table.Core:
        ids = self.ids
        slots = self._slots() if start is None else self._encoded_slots(start)
        rows = _rows(self.bytes, ids)
        table = 1 << max((2 * rows).bit_length(), merge_table.LEAST_INDEX)
        core = merge_table.Core(
            slots=slots,
            width=np.ones(ids + 1, np.int64),
            size=np.ones(ids + 1, np.int64),
            merges=np.zeros((ids, 2), np.uint32),
            counts=np.zeros(ids, np.int64),
            left_tally=np.zeros(ids + 1, np.int64),
            right_tally=np.zeros(ids + 1, np.int64),
            left_seen=np.zeros(ids + 2, np.int64),
            right_seen=np.zeros(ids + 2, np.int64),
            left_room=np.full(ids + 1, -1, np.int64),
            right_room=np.full(ids + 1, -1, np.int64),
            arena=np.empty(self._arena(slots, rows), np.uint32),
            scratch=np.empty(1 << 14, np.uint32),
            left=np.empty(rows, np.uint32),
            right=np.empty(rows, np.uint32),
            start=np.empty(rows, np.int64),
            length=np.empty(rows, np.int64),
            count=np.empty(rows, np.int64),
            key=np.empty(table, np.int64),
            row_of=np.empty(table, np.int32),
            heap_count=np.empty(rows, np.int64),
            heap_pair=np.empty(rows, np.int64),
            heap_row=np.empty(rows, np.int64),
            reg=np.zeros(13, np.int64),
        )
        core.reg[merge_table.SLOTS] = len(slots)
        core.reg[merge_table.IDS] = 256
        core.reg[merge_table.CAP] = max_token_length
        if start is not None:
            core.reg[merge_table.IDS] = 256 + len(start)
            for new, pair in enumerate(start, 256):
                core.merges[new] = pair
                core.size[new] = core.size[pair].sum()
        return core

    def _arena(self, slots: np.ndarray, rows: int) -> int:
        """Positions the arena holds: 2.5 a slot if memory is plentiful, 0.6 on big corpora."""
        n = len(slots)
        spare = (self.budget - _FIXED_BYTES - slots.nbytes - rows * _ROW_BYTES) // 4
        roomy = min(5 * n // 2, max(6 * n // 10, 1 << 27))
        return max(min(roomy, spare), n // 4, 64)

    def _slots(self) -> np.ndarray:
        """A separator, then every piece and a separator; frees the documents on the way."""
        ids, length = self.ids, self.rules.length
        item = np.uint16 if ids <= 0xFFFF else np.uint32
        slots = np.empty(self.bytes + self.pieces + 1, item)
        slots[0] = ids
        at = 1
        for data in self._spans.drain():
            whole = len(data) // length
            block = slots[at : at + whole * (length + 1)].reshape(whole, length + 1)
            block[:, :length] = data[: whole * length].reshape(whole, length)
            block[:, length] = ids
            at += block.size
            rest = data[whole * length :]
            if len(rest):
                slots[at : at + len(rest)] = rest
                slots[at + len(rest)] = ids
                at += len(rest) + 1
        assert at == len(slots)
        return slots

    def _encoded_slots(self, start: np.ndarray) -> np.ndarray:
        """The same after the merges of `start`."""
        item = np.uint16 if self.ids <= 0xFFFF else np.uint32
        codec, parts = Codec(start), [np.array([self.ids], item)]
        for span in self._spans.drain():
            for i in range(0, len(span), self.rules.length):
                piece = span[i : i + self.rules.length].tobytes()
                parts += [codec.encode(piece).astype(item), parts[0]]
        return np.concatenate(parts)


def available_memory() -> int:
    """Bytes of memory a new process could take without swapping; 8 GiB where nobody can tell."""
    try:
        with open("/proc/meminfo") as lines:
            found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        found = []
    return int(found[0][1]) << 10 if found else 8 << 30
