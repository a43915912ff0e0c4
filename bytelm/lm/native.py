"""`NativeLM`: a causal `ByteModel` behind the `ByteLM` interface.

A context of bytes is the beginning of the text. One that names special symbols is pinned: it stands
before the window and never slides out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, CausalModel, Hierarchical
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.lm.decoder import DecoderLM
from bytelm.lm.decoder_rows import Row
from bytelm.lm.protocol import Context, plain_bytes
from bytelm.nn.state import State


class NativeLM(DecoderLM[CausalModel[Any]]):
    """A trained causal model as a distribution over byte strings; arguments as `DecoderLM`'s."""

    def __init__(
        self,
        model: ByteModel,
        *,
        window: int,
        stride: int | None = None,
        specials: Mapping[str, int] | None = None,
    ):
        if not isinstance(model, CausalModel):
            raise BytelmError(
                f"{type(model).__name__} is of the {model.family} family: only causal models "
                "predict the next byte"
            )
        super().__init__(model, window=window, stride=stride, specials=specials)

    @torch.no_grad()
    def chunk_boundaries(self, data: bytes) -> list[Tensor]:
        """Where a hierarchical model cuts `data`: one bool tensor (n,) per stage, outermost first,
        true at the bytes that begin a chunk, each judged in the window in which it is read.

        `BytelmError` if the model does not cut.
        """
        if not isinstance(self.model, Hierarchical):
            raise BytelmError(
                f"{type(self.model).__name__} has no chunks: only hierarchical models cut"
            )
        row = replace(self._open(), text=data)
        pieces: list[list[Tensor]] = []
        for s, lo, hi in self._sliding.segments(1, len(data)):
            ids_BL, _ = self._pad([[*row.head, *data[s:hi]]])
            first = len(row.head) + lo - 1 - s
            stages = self.model.chunk_boundaries(ids_BL)
            pieces.append([starts_BL[0, first:].cpu() for starts_BL in stages])
        return [torch.cat(stage) for stage in zip(*pieces, strict=True)]

    def _open(self, context: Context = ()) -> Row:
        bos = self.model.vocab.bos
        lead = plain_bytes(context)
        if lead is not None:
            return Row(context, (bos,), self._sliding, lead, len(lead))
        pinned = [i for p in context for i in (p if isinstance(p, bytes) else [self._specials[p]])]
        sliding = self._sliding.behind(len(pinned))
        return Row(context, (bos, *pinned), sliding, b"", 0)

    @torch.no_grad()
    def _fresh(self, rows: Sequence[Row]) -> State:
        return self.model.init_state(len(rows))

    def _batch(self, ids_BL: Tensor, lengths_B: Tensor, rows: Sequence[Row]) -> Batch:
        return Batch(ids=ids_BL, lengths=lengths_B)
