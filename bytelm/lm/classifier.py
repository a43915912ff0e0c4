"""`Classifier`: a trained encoder as a function from byte strings to probabilities of labels.

It reads what it was judged by: the first `window` bytes of a text (the classification objective
counts a held-out document once, by those). Texts are batched by length, because attention in both
directions pays for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.arch.base import ByteModel, EncoderModel
from bytelm.data.batch import Batch, byte_rows, id_rows
from bytelm.errors import BytelmError

BATCH_POSITIONS = 16_384  # positions of one forward; bounds memory, not results


class Classifier:
    """Says which label fits a byte string.

    window   bytes of each text that are read
    encode   bytes -> the ids that the model reads; None = the bytes themselves
    """

    def __init__(
        self,
        model: ByteModel,
        *,
        window: int,
        encode: Callable[[bytes], NDArray[np.integer]] | None = None,
    ):
        if not isinstance(model, EncoderModel):
            raise BytelmError(
                f"{type(model).__name__} is of the {model.family} family: only encoders classify; "
                "use bytelm.load"
            )
        if not model.labels:
            raise BytelmError(
                "this encoder was trained to fill words and has no classes: use `bytelm fill` (or "
                "bytelm.load_filler), or train it with objective.kind=classification"
            )
        if window < 1:
            raise BytelmError(f"window must be at least 1 byte, not {window}")
        self.model, self.window, self._encode = model.eval(), window, encode

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `predict`."""
        return self.model.labels

    @torch.no_grad()
    def predict(self, data: Sequence[bytes]) -> Tensor:
        """(n, classes) float64 probabilities of the labels; each row sums to 1.

        `BytelmError` for anything that is not a sequence of byte strings.
        """
        if isinstance(data, bytes | bytearray | str):
            raise BytelmError("predict takes a sequence of byte strings: put a single one in [...]")
        for text in data:
            if not isinstance(text, bytes | bytearray | memoryview):
                raise BytelmError(f"predict takes byte strings, not {type(text).__name__}")
        texts = [bytes(text[: self.window]) for text in data]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        result = torch.empty(len(texts), len(self.labels), dtype=torch.float64)
        while order:
            count = max(1, BATCH_POSITIONS // max(1, len(texts[order[-1]])))
            chosen = order[-count:]
            del order[-count:]
            batch = self._rows([texts[i] for i in chosen]).to(self.model.device)
            logits = self.model(batch).logits.cpu().double()
            result[chosen] = logits.softmax(dim=-1).cpu()
        return result

    def _rows(self, texts: list[bytes]) -> Batch:
        if self._encode is None:
            return byte_rows(texts)
        return id_rows([self._encode(text) for text in texts], pad=self.model.vocab.pad)
