"""`Filler`: a trained encoder as a function from texts with gaps to the words that fit there.

A gap is one masked word, as in training (`objectives/masked_words.py`): of any length up to M
pieces, with the space in front of it, so a space before a gap belongs to the word that is looked
for. The places of a gap are predicted side by side, so the probability of a word is the product of
those of its pieces and of the stop, and the best words are found exactly.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, EncoderModel, FillsWords
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError


@dataclass(frozen=True)
class Filling:
    """A word for a gap, its space included, and its probability."""

    word: bytes
    probability: float


class Filler:
    """Finds the words that fit best into the gaps of a text.

    pieces  the bytes of each piece, None for specials
    encode  bytes -> the ids that the model reads; None = the bytes themselves
    window  ids that a text may have
    """

    def __init__(
        self,
        model: ByteModel,
        pieces: Sequence[bytes | None],
        *,
        window: int,
        encode: Callable[[bytes], Sequence[int]] | None = None,
    ):
        if not isinstance(model, EncoderModel) or not isinstance(model, FillsWords):
            raise BytelmError(
                f"{type(model).__name__} fills no words: train a byte2word model with "
                "objective.kind=masked_words"
            )
        if model.mask is None or model.stop is None:
            raise BytelmError(
                "this model was trained to classify and fills no words: train it with "
                "objective.kind=masked_words"
            )
        self.model, self.pieces, self.window = model.eval(), pieces, window
        self._mask, self._stop = model.mask, model.stop
        self._encode: Callable[[bytes], Sequence[int]] = encode or list
        self._spelled = torch.tensor([bool(piece) for piece in pieces])

    @torch.no_grad()
    def fill(self, parts: Sequence[bytes], *, top: int = 5) -> list[list[Filling]]:
        """The `top` best words for each gap of a text, likeliest first.

        parts   the text between the gaps: one more than there are gaps

        `BytelmError` if there is no gap, or if the text is longer than the model reads.
        """
        if len(parts) < 2:
            raise BytelmError("the text has no gap: write [MASK] where a word is missing")
        ids: list[int] = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            ids.extend(self._encode(part if last else part.removesuffix(b" ")))
            if not last:
                ids.append(self._mask)
        if len(ids) > self.window:
            raise BytelmError(
                f"the text takes {len(ids)} positions and the model reads {self.window}: shorten it"
            )
        batch = Batch(ids=torch.tensor([ids])).to(self.model.device)
        logprobs = self.model(batch).logits.cpu().double().log_softmax(dim=-1)
        return [self._best(gap, top) for gap in logprobs]

    def _best(self, logprobs_MV: Tensor, top: int) -> list[Filling]:
        """The likeliest words: as places are independent, the best k beginnings of each length hold
        the beginnings of the best k words."""
        ended: list[tuple[float, tuple[int, ...]]] = []
        begun: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        spelled = logprobs_MV.masked_fill(~self._spelled, -torch.inf)
        for place, row in enumerate(spelled):
            if place:
                stop = float(logprobs_MV[place, self._stop])
                ended += [(logprob + stop, word) for logprob, word in begun]
            values, pieces = row.topk(min(top, len(row)))
            options = list(zip(values.tolist(), pieces.tolist(), strict=True))
            longer = [(a + b, (*word, piece)) for a, word in begun for b, piece in options]
            begun = sorted(longer, reverse=True)[:top]
        best = sorted([*ended, *begun], reverse=True)[:top]
        return [Filling(self._spell(word), math.exp(p)) for p, word in best]

    def _spell(self, word: Sequence[int]) -> bytes:
        return b"".join(self.pieces[piece] or b"" for piece in word)
