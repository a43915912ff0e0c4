"""The corpus a vocabulary is trained on, in memory within a budget, laid out for the compiled core.

Documents are kept in large blocks until all are read, then become slots: a separator, then every
piece and a separator. A run that starts from merges found earlier encodes the pieces with them,
which is the state training had then.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from bytelm.errors import BytelmError
from bytelm.tokenizer import merge_table
from bytelm.tokenizer.codec import Codec
from bytelm.tokenizer.pieces import PieceRules

_ROW_BYTES = 104  # of the table of tracked pairs and its heap
_ROWS_PER_ID = 24
_BLOCK_BYTES = 64 << 20  # above what malloc keeps for itself when freed
FIXED_BYTES = 168 << 20  # interpreter, numpy, numba and the compiled core


def memory_needed(corpus_bytes: int, ids: int) -> int:
    """Bytes of memory below which `train_merges` refuses to start on so much data."""
    item = 2 if ids <= 0xFFFF else 4
    return FIXED_BYTES + _rows(corpus_bytes, ids) * _ROW_BYTES + corpus_bytes * (item + 1)


def _rows(corpus_bytes: int, ids: int) -> int:
    return max(4 * ids + 16, min(_ROWS_PER_ID * ids, corpus_bytes))


class _Blocks:
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


class TrainingCorpus:
    """Reads documents into memory within a budget, and lays them out as slots for the core.

    bytes, pieces  how much was kept
    sha256         digest of what was kept and of the rules
    """

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
        self._spans = _Blocks()
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
        """All arrays of the compiled core, after the (M, 2) merges `start`; frees the documents."""
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
            left_counts=np.zeros(ids + 1, np.int64),
            right_counts=np.zeros(ids + 1, np.int64),
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
        """Positions the arena holds: 2.5 per slot if memory is plentiful, 0.6 on big corpora."""
        n = len(slots)
        spare = (self.budget - FIXED_BYTES - slots.nbytes - rows * _ROW_BYTES) // 4
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
