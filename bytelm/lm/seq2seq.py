"""`Seq2SeqLM`: a sequence-to-sequence `ByteModel` behind the `ByteLM` interface.

The `context` of a text is what the encoder reads, the text itself is the decoder's: so generation,
beams, scoring and evaluation are those of any other model. Without a context the source is empty.
A source is read whole; only the decoder's text slides out of the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, Deleting, Seq2SeqModel
from bytelm.data.batch import Batch, byte_rows
from bytelm.errors import BytelmError
from bytelm.lm.decoder import DecoderLM
from bytelm.lm.decoder_rows import Row
from bytelm.lm.protocol import Context
from bytelm.nn.state import State


class Seq2SeqLM(DecoderLM[Seq2SeqModel[Any]]):
    """A trained sequence-to-sequence model as a distribution over byte strings, given a source.

    Arguments as `DecoderLM`'s; `window` and `stride` are about the decoder's text.
    """

    context_is_text = False

    def __init__(
        self,
        model: ByteModel,
        *,
        window: int,
        stride: int | None = None,
        specials: Mapping[str, int] | None = None,
    ):
        if not isinstance(model, Seq2SeqModel):
            raise BytelmError(
                f"{type(model).__name__} is of the {model.family} family and reads no source: "
                "use bytelm.load"
            )
        super().__init__(model, window=window, stride=stride, specials=specials)

    def deleted_bytes(self, source: bytes) -> list[bool]:
        """Which bytes of a source the encoder leaves out; `BytelmError` if it never does."""
        if not isinstance(self.model, Deleting):
            raise BytelmError(
                f"{type(self.model).__name__} reads every byte of its source: only models that "
                "delete bytes (mrt5) can show which"
            )
        batch = byte_rows([source]).to(self.model.device)
        return self.model.deleted(batch)[0, : len(source)].tolist()

    def _open(self, context: Context) -> Row:
        return Row(context, (self.model.vocab.bos,), self._sliding, b"", 0)

    @torch.no_grad()
    def _fresh(self, rows: Sequence[Row]) -> State:
        return self.model.init_state(self.model.encode(self._sources(rows)))

    def _batch(self, ids_BL: Tensor, lengths_B: Tensor, rows: Sequence[Row]) -> Batch:
        return Batch(ids=ids_BL, lengths=lengths_B, source=self._sources(rows))

    def _sources(self, rows: Sequence[Row]) -> Batch:
        """The contexts of the rows, as the encoder reads them."""
        ids_BM, lengths_B = self._pad([self._ids(row.context) for row in rows])
        return Batch(ids=ids_BM, lengths=lengths_B)

    def _ids(self, context: Context) -> list[int]:
        """Bytes as they are, special symbols by their ids."""
        parts = (p if isinstance(p, bytes) else (self._specials[p],) for p in context)
        return [i for part in parts for i in part]
