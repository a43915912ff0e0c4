"""`Windows`: cut a corpus into training rows, in an order that is a pure function of the seed.

The causal stream: a document of n bytes takes n + 1 target positions, its bytes and then EOS. The
inputs are the targets shifted by one, where the first input of every document and of every window
is BOS; so EOS is never an input, and each byte of the corpus is a target exactly once per epoch.
A window that starts inside a document therefore begins with BOS too: the model has no more context
there, and a row never depends on how the stream was cut before it. Rows that are not full are
padded on the right, `lengths` set. `raw_bytes` counts byte targets, not ends.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.buckets import Buckets
from bytelm.data.corpus import Corpus
from bytelm.data.order import ORDER, Integers, permute
from bytelm.data.packing import cut_documents, pack_documents
from bytelm.errors import DataError, unknown_name
from bytelm.vocab import END, ByteVocab

Policy = Literal["concat", "pack", "document", "truncate", "bucket", "record"]

_VOCAB = ByteVocab()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Target symbols of B windows before an objective works on them.

    symbols   (B, L) int16, bytes and END; what lies beyond a row's length is undefined. L is the
              window length, or less where no row needs it (policy bucket)
    lengths   (B,) int64
    documents (B,) int64, the corpus's number of the document each row begins in
    single    True if no row can hold more than one document
    ends      how many symbols are END
    """

    symbols: NDArray[np.int16]
    lengths: NDArray[np.int64]
    documents: NDArray[np.int64]
    single: bool
    ends: int


class Windows:
    """All windows of a corpus, for any epoch, without an order table or generator state.

    `policy` says how positions become rows of `length`:
    concat    documents joined, cut every `length` positions (the last window may be shorter)
    document  rows never hold two documents; a longer one takes several rows
    truncate  one row per document: what lies beyond its first `length` positions is never read
    pack      like document, but short pieces share rows (best fit); no piece is cut again
    bucket    like document, ordered so that rows of similar length share a batch, which is only as
              wide as they need: blocks of `bucket_rows` (buckets.py)
    record    like document, for documents of whole records of `record_size` bytes; every row
              starts at a record

    >>> import tempfile, pathlib; file = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = file.write_bytes(b"abc")
    >>> batch = Windows(Corpus.open(file), length=2, shuffle=False).batch([0, 1], epoch=0)
    >>> batch.ids.tolist(), batch.targets.tolist(), batch.raw_bytes
    ([[257, 97], [257, 99]], [[97, 98], [99, 256]], 3)
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        length: int,
        policy: Policy = "concat",
        record_size: int | None = None,
        bucket_rows: int = 64,
        seed: int = 0,
        shuffle: bool = True,
    ):
        if policy not in get_args(Policy):
            raise DataError(unknown_name("window policy", policy, get_args(Policy)))
        if length < 1:
            raise DataError(f"a window needs at least one position, not {length}")
        _check_records(corpus, length=length, policy=policy, record_size=record_size)
        self.corpus, self.length, self.policy = corpus, length, policy
        self.record_size, self.seed, self.shuffle = record_size, seed, shuffle
        # Position p of document d is byte p - d of the stream; its END is at _starts[d + 1] - 1.
        self._starts = corpus.offsets + np.arange(len(corpus) + 1)
        self._pieces = self._layout()
        self._bucket_rows = bucket_rows
        self._buckets = self._sort() if policy == "bucket" else None

    def _layout(self) -> tuple[Integers, Integers, Integers] | None:
        """(first, begins, ends): row r is made of pieces first[r]:first[r + 1]; None for concat."""
        if self.policy == "concat":
            return None
        if self.policy == "truncate":
            begins, after = self._starts[:-1], self._starts[1:]
            return np.arange(len(begins) + 1), begins, np.minimum(begins + self.length, after)
        begins, ends = cut_documents(self._starts, length=self.length)
        if self.policy == "pack":
            return pack_documents(begins, ends, length=self.length)
        return np.arange(len(begins) + 1), begins, ends

    def _sort(self) -> Buckets:
        """The rows of the document policy in their buckets."""
        assert self._pieces is not None
        _, begins, ends = self._pieces
        return Buckets(ends - begins, length=self.length, block=self._bucket_rows)

    @property
    def count(self) -> int:
        """Windows in an epoch."""
        if self._pieces is not None:
            return len(self._pieces[0]) - 1
        return -(-int(self._starts[-1]) // self.length)

    @property
    def truncated(self) -> tuple[int, int]:
        """(documents, bytes of them) that no row reads: what the policy `truncate` leaves out."""
        if self.policy != "truncate":
            return 0, 0
        beyond = np.diff(self.corpus.offsets) - self.length
        return int((beyond > 0).sum()), int(beyond.clip(min=0).sum())

    @property
    def fingerprint(self) -> str:
        """A hash of everything the sequence of rows depends on."""
        parts = (ORDER, self.corpus.fingerprint, self.length, self.policy, self.record_size)
        buckets = () if self._buckets is None else (self._bucket_rows,)
        parts = (*parts, self.seed, self.shuffle, *buckets)
        return sha256(repr(parts).encode()).hexdigest()[:32]

    def epoch(self, sample: int) -> int:
        """The epoch a sample number falls in."""
        return sample // self.count

    def batch(self, indices: NDArray | list[int], *, epoch: int) -> Batch:
        """The causal batch at positions `indices` of the order of `epoch`."""
        index = np.asarray(indices, dtype=np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < self.count:
            raise IndexError(f"window indices must be in range({self.count})")
        return causal_batch(self.rows(epoch * self.count + index))

    def rows(self, samples: Integers) -> Rows:
        """The rows of sample numbers: epoch * count + index, any mixture of epochs."""
        samples = np.asarray(samples, dtype=np.int64)
        numbers = self.window_numbers(samples)
        symbols = np.empty((len(numbers), self.length), dtype=np.int16)
        lengths = np.empty(len(numbers), dtype=np.int64)
        first = np.empty(len(numbers), dtype=np.int64)
        ends = 0
        for i, number in enumerate(numbers.tolist()):
            filled, spans = 0, self._spans(number)
            first[i] = spans[0][0]
            for begin, end in spans:
                row = symbols[i, filled : filled + end - begin]
                ends += self._fill(row, begin=begin, end=end)
                filled += end - begin
            lengths[i] = filled
        single = self.policy not in ("concat", "pack") or len(self.corpus) == 1
        if self._buckets is not None:
            symbols = symbols[:, : self._buckets.width(int(lengths.max(initial=0)))]
        documents = np.searchsorted(self._starts, first, side="right") - 1
        return Rows(symbols=symbols, lengths=lengths, documents=documents, single=single, ends=ends)

    def bytes_of(self, samples: Integers) -> Integers:
        """(B,) bytes in the windows of these sample numbers, ends not counted; nothing is read."""
        return np.array(
            [
                sum(self._bytes_before(end) - self._bytes_before(begin) for begin, end in spans)
                for number in self.window_numbers(samples).tolist()
                if (spans := self._spans(number))
            ],
            dtype=np.int64,
        )

    def _bytes_before(self, position: int) -> int:
        """Bytes among the positions before `position`."""
        return position - int(np.searchsorted(self._starts[1:], position, side="right"))

    def window_numbers(self, samples: Integers) -> Integers:
        """Which window each sample is: the permutation of its epoch applied to its index."""
        epochs, indices = np.divmod(samples, self.count)
        if not self.shuffle:
            return indices
        numbers = np.empty_like(indices)
        for epoch in np.unique(epochs).tolist():
            here, key = epochs == epoch, (self.seed, epoch)
            if self._buckets is not None:
                numbers[here] = self._buckets.rows(indices[here], key=key)
            else:
                numbers[here] = permute(indices[here], size=self.count, key=key)
        return numbers

    def _spans(self, number: int) -> list[tuple[int, int]]:
        """Position ranges [begin, end) that form one window."""
        if self._pieces is None:
            begin = number * self.length
            return [(begin, min(begin + self.length, int(self._starts[-1])))]
        first, begins, ends = self._pieces
        pieces = slice(int(first[number]), int(first[number + 1]))
        return list(zip(begins[pieces].tolist(), ends[pieces].tolist(), strict=True))

    def _fill(self, row: NDArray[np.int16], *, begin: int, end: int) -> int:
        """Write the symbols of positions [begin, end) into `row`; returns how many are END."""
        first = int(np.searchsorted(self._starts, begin, side="right")) - 1
        after = int(np.searchsorted(self._starts, end, side="right")) - 1
        data = self.corpus.read(begin - first, end - after)
        if first == after:
            row[:] = data
            return 0
        is_byte = np.ones(end - begin, dtype=bool)
        is_byte[self._starts[first + 1 : after + 1] - 1 - begin] = False
        row[is_byte] = data
        row[~is_byte] = END
        return after - first


def causal_batch(rows: Rows) -> Batch:
    """Next-byte prediction: inputs are the targets shifted, BOS at every start."""
    symbols = torch.from_numpy(rows.symbols)
    targets = symbols.long()
    ids = torch.empty_like(targets)
    ids[:, 0] = _VOCAB.bos
    ids[:, 1:] = symbols[:, :-1]
    if rows.ends:
        ids[:, 1:][symbols[:, :-1] == END] = _VOCAB.bos
    lengths = torch.from_numpy(rows.lengths)
    full = bool((lengths == targets.shape[1]).all())
    if not full:
        padding = torch.arange(targets.shape[1]) >= lengths[:, None]
        targets[padding], ids[padding] = IGNORE, _VOCAB.pad
    return Batch(
        ids=ids,
        targets=targets,
        lengths=None if full else lengths,
        document_ids=None if rows.single else _document_ids(targets),
        raw_bytes=int(lengths.sum()) - rows.ends,
    )


def _document_ids(targets: Tensor) -> Tensor:
    """(B, L): how many documents ended before each position of its row."""
    ends = (targets == END).long()
    return ends.cumsum(dim=1) - ends


def _check_records(corpus: Corpus, *, length: int, policy: str, record_size: int | None) -> None:
    if (policy == "record") != (record_size is not None):
        raise DataError("record_size belongs to the policy 'record', and that policy needs it")
    if record_size is None:
        return
    if record_size < 1 or length % record_size:
        raise DataError(f"window length {length} is not a multiple of record_size {record_size}")
    broken = np.flatnonzero(np.diff(corpus.offsets) % record_size)
    if len(broken):
        size = int(np.diff(corpus.offsets)[broken[0]])
        raise DataError(
            f"document {broken[0]} has {size} bytes: not a whole number of {record_size}-byte "
            f"records ({len(broken)} such documents)"
        )
