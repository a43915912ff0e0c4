"""A curriculum of window lengths: short rows first, without touching the order of the data.

The windows are always those of the final length, drawn in their usual order; early in training each
is cut into shorter rows, side by side in the same batch. So a step holds the same bytes whatever
the length, every byte is a target exactly once per epoch wherever the length changes, and nothing
is added to the state a run resumes from. Each shorter row begins with BOS, as a window does.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from bytelm.data.batch import Batch
from bytelm.vocab import ByteVocab

_BOS = ByteVocab().bos


def row_length(curriculum: Sequence[Sequence[float]], *, done: float) -> int:
    """The length in force at share `done` of training; `curriculum` is [[from share, length], ...].

    >>> row_length([[0.0, 256], [0.3, 1024]], done=0.3)
    1024
    """
    return int([length for share, length in curriculum if share <= done][-1])


def cut_rows(batch: Batch, *, length: int) -> Batch:
    """Each row of a causal batch as several rows of `length`, which divides its width; all of them
    keep the label and the source of the row they come from.

    Rows without a target are left out, so B may be less than the number of cuts.

    >>> batch = Batch(ids=torch.tensor([[257, 97, 98, 0]]), lengths=torch.tensor([3]),
    ...               targets=torch.tensor([[97, 98, 99, -100]]), raw_bytes=3)
    >>> cut = cut_rows(batch, length=2); cut.ids.tolist(), cut.targets.tolist()
    ([[257, 97], [257, 0]], [[97, 98], [99, -100]])
    """
    rows, width = batch.ids.shape
    if length == width:
        return batch
    assert batch.targets is not None
    whole = torch.full((rows,), width) if batch.lengths is None else batch.lengths
    lengths = (whole[:, None] - torch.arange(0, width, length)).clamp(0, length).flatten()
    kept = lengths > 0
    rows_of = torch.arange(rows).repeat_interleave(width // length)

    def cut(tensor: Tensor) -> Tensor:
        return rearrange(tensor, "b (n l) -> (b n) l", l=length)[kept]

    ids = cut(batch.ids)
    ids[:, 0] = _BOS
    documents, boundaries = batch.document_ids, batch.boundaries
    return replace(
        batch,
        ids=ids,
        targets=cut(batch.targets),
        lengths=None if bool((lengths == length).all()) else lengths[kept],
        document_ids=None if documents is None else cut(documents),
        boundaries=None if boundaries is None else cut(boundaries),
        labels=None if batch.labels is None else batch.labels[rows_of[kept]],
        source=None if batch.source is None else batch.source.select(rows_of[kept]),
    )
