"""`Batch`: the tensors one training or scoring step works on, whatever made them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.vocab import ByteVocab

IGNORE = -100  # a target or label that carries no loss

_PAD = ByteVocab().pad


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of byte rows. Shapes: B rows, L positions. All integer tensors are int64.

    ids           (B, L)  input ids; rows are padded on the right with any id
    targets       (B, L)  id to be predicted at each position, IGNORE (-100) = no loss; or None
    lengths       (B,)    valid positions of each row; None = all L
    document_ids  (B, L)  positions with different ids must not see each other (packed documents);
                          non-decreasing along a row; None = one document per row
    boundaries    (B, L)  bool, chunk starts for models with boundary="given"; or None. BLT needs
                          (B, L + 1): it must know whether a patch ends at the last position
    labels        (B,)    class of each row, IGNORE = none, for classification; or None
    source                what an encoder reads: a batch of B rows of its own; or None
    raw_bytes             how many raw data bytes are predicted by `targets` (for bits per byte)

    >>> Batch(ids=torch.zeros(2, 8, dtype=torch.long)).select(torch.tensor([1])).ids.shape
    torch.Size([1, 8])
    """

    ids: Tensor
    targets: Tensor | None = None
    lengths: Tensor | None = None
    document_ids: Tensor | None = None
    boundaries: Tensor | None = None
    labels: Tensor | None = None
    source: "Batch | None" = None
    raw_bytes: int = 0

    def mask(self) -> Tensor | None:
        """(B, L) bool, true at valid positions; None when every position is valid."""
        if self.lengths is None:
            return None
        L = self.ids.shape[1]
        return torch.arange(L, device=self.ids.device) < self.lengths[:, None]

    def trimmed(self) -> "Batch":
        """The same rows without the columns that are padding in all of them, and without `lengths`
        where that leaves no padding: models which see the whole row then work on the same numbers
        however far a batch was padded."""
        if self.lengths is None or not len(self.lengths):
            return self
        longest = max(1, int(self.lengths.max()))
        dropped = self.ids.shape[1] - longest
        kept = {
            name: value[:, : value.shape[1] - dropped]
            for name in ("ids", "targets", "document_ids", "boundaries")
            if (value := getattr(self, name)) is not None
        }
        full = bool((self.lengths == longest).all())
        return replace(self, lengths=None if full else self.lengths, **kept)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors, and those of its source, on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def select(self, rows: Tensor) -> "Batch":
        """The rows `rows` (an int64 index or a (B,) bool mask), with their labels and sources.

        `raw_bytes` is known for whole batches only and is 0 in the result.
        """
        return replace(self._map(lambda tensor: tensor[rows]), raw_bytes=0)

    def split(self, parts: int) -> list["Batch"]:
        """Cut by rows into `parts` of (nearly) equal size, some without a row if B < `parts`.

        `raw_bytes` is known for whole batches only: the first part carries all of them, so that
        they add up.
        """
        if parts == 1:
            return [self]
        rows = [slice(r.start, r.stop) for r in _shares(len(self.ids), parts)]
        return [
            replace(self._map(itemgetter(row)), raw_bytes=0 if i else self.raw_bytes)
            for i, row in enumerate(rows)
        ]

    def without_content(self) -> "Batch":
        """One row of the same shape in which no position is valid and nothing has to be predicted:
        it adds nothing to any loss, sum or count."""
        row = self._map(itemgetter(slice(0, 1)))
        assert len(row.ids), "a batch has a row"
        return replace(
            row,
            targets=None if row.targets is None else torch.full_like(row.targets, IGNORE),
            lengths=torch.zeros_like(row.ids[:, 0]),
            labels=None if row.labels is None else torch.full_like(row.labels, IGNORE),
            raw_bytes=0,
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor changed, those of the source too."""
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        source = None if self.source is None else self.source._map(change)
        return replace(self, source=source, **changed)


def _shares(count: int, parts: int) -> list[range]:
    """`count` numbers in `parts` consecutive ranges, the longer ones first."""
    ends = [i * (count // parts) + min(i, count % parts) for i in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


def byte_rows(texts: Sequence[bytes], *, limit: int | None = None) -> Batch:
    """Texts as rows of byte values, as an encoder reads them: ids (B, L) and lengths (B,).

    limit  bytes read of each text; None = all of it. L is the longest row, at least 1; a text
           without a byte is a row of length 0.

    >>> batch = byte_rows([b"ab", b""]); batch.ids[0].tolist(), batch.lengths.tolist()
    ([97, 98], [2, 0])
    """
    return id_rows([np.frombuffer(text, np.uint8)[:limit] for text in texts], pad=_PAD)


def id_rows(sequences: Sequence[NDArray[np.integer]], *, pad: int) -> Batch:
    """Sequences of ids as rows, padded with `pad`: as `byte_rows` for any vocabulary."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    ids = np.full((len(sequences), max(1, int(lengths.max(initial=0)))), pad, dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return Batch(ids=torch.from_numpy(ids), lengths=torch.from_numpy(lengths))
