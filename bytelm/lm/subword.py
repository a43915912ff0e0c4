"""Our own subword models as `ByteLM`s: what `bytelm.load` makes of a run with `data.tokenizer`.

Such a run is read like any tokenized model, through the exact converter (its adapter is
`exact/models/trained.py`), and like our byte models in windows of the context it was trained with.

Two figures of such a model must not be confused. `score` and `bits_per_byte` are those of the exact
byte distribution, a sum over token strings (those of `mode`). `SubwordLM.tokens` scores the one
token string that the tokenizer writes: as fast as the model itself, and what is usually reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bytelm.arch.base import ByteModel, CausalModel
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter, Mode
from bytelm.exact.models.trained import text_bias, token_vocab_of, trained_lm
from bytelm.exact.tokenizers.added import behind_added
from bytelm.exact.tokenizers.tables import merge_encoder
from bytelm.exact.windowed import WindowedConverter
from bytelm.lm.scored import scored
from bytelm.lm.sliding_context import SlidingContext
from bytelm.tokenizer import BinaryBPE

_BATCH_LOGITS = 1 << 26  # numbers in the logits of one scoring forward: bounds memory, not results


class SubwordLM(WindowedConverter):
    """A model over the ids of `bpe` as an exact byte-level one.

    window, stride        as in `NativeLM`, in bytes
    mode, beam, epsilon   as in `bytelm.convert`. The default is `canonical`, one row per byte: the
                          model never saw another encoding, and a beam over all of them costs more
    """

    def __init__(
        self,
        model: ByteModel,
        bpe: BinaryBPE,
        *,
        window: int,
        stride: int | None = None,
        mode: Mode = "canonical",
        beam: int = 8,
        epsilon: float = 1e-3,
    ):
        if not isinstance(model, CausalModel):
            raise BytelmError(f"{type(model).__name__} does not predict what comes next")
        self.model, self.bpe = model.eval(), bpe
        tokens = [bpe.codec.token(i) for i in range(len(bpe.codec))]
        merges = [(tokens[a], tokens[b]) for a, b in bpe.codec.merges.tolist()]
        encoder = behind_added(merge_encoder(bpe.token_bytes, merges, None), [bpe.added])
        lm = trained_lm(self.model, bpe)
        converter = ByteConverter(lm, encoder, mode=mode, beam=beam, epsilon=epsilon)
        super().__init__(converter, window=window, stride=stride)

    @property
    def tokens(self) -> TokenScores:
        """The model's code length of the tokens the tokenizer writes."""
        return TokenScores(self.model, self.bpe, self.sliding)


@dataclass(frozen=True)
class TokenScores:
    """log P of a text's canonical tokens, in windows as `SlidingContext` says, for `evaluate_bits`.

    A whole text is encoded once; a token that starts at byte t is predicted from the tokens that
    start in its context x[s:t]. In a single window this is at most log P of the exact byte model,
    which adds the other token strings of the same bytes.
    """

    model: CausalModel[Any]
    bpe: BinaryBPE
    sliding: SlidingContext

    @property
    def window(self) -> int:
        return self.sliding.window

    @property
    def stride(self) -> int:
        return self.sliding.stride

    def score_batch_with_end(self, texts: Sequence[bytes]) -> list[Tensor]:
        """(n + 1,) float64 nats per text: each token's at its first byte, 0 elsewhere; then the
        end's. Sums are code lengths; single entries say nothing about single bytes."""
        scores = [torch.zeros(len(text) + 1, dtype=torch.float64) for text in texts]
        windows = [
            window
            for text, out in zip(texts, scores, strict=True)
            for window in self._windows(text, out)
        ]
        windows.sort(key=lambda window: len(window.ids))
        positions = max(1, _BATCH_LOGITS // self.bpe.vocab_size)
        while windows:
            count = max(1, positions // len(windows[-1].ids))
            self._score(windows[-count:])
            del windows[-count:]
        return scores

    def _windows(self, text: bytes, out: Tensor) -> list[_TokenWindow]:
        """The windows of one text, whose scores go to `out`."""
        vocab = token_vocab_of(self.model)
        ids, offsets = self.bpe.encode_with_offsets(text)
        ids, starts = np.append(ids, vocab.eos), offsets  # the end starts where the text stops
        found = []
        for s, lo, hi in self.sliding.segments(0, len(text)):
            context, first, last = np.searchsorted(starts, [s, lo, hi + 1])
            if first < last:
                row = [vocab.bos, *ids[context:last].tolist()]
                places = torch.from_numpy(starts[first:last])
                found.append(_TokenWindow(row, out, places, size=hi + 1 - lo))
        return found

    @torch.no_grad()
    def _score(self, windows: Sequence[_TokenWindow]) -> None:
        width = max(len(window.ids) for window in windows) - 1
        vocab, device = token_vocab_of(self.model), self.model.device
        rows = [[*window.ids, *[vocab.pad] * (width + 1 - len(window.ids))] for window in windows]
        ids_BL = torch.tensor(rows, device=device)
        lengths_B = torch.tensor([len(window.ids) - 1 for window in windows], device=device)
        logits_BLV = self.model(Batch(ids=ids_BL[:, :-1], lengths=lengths_B)).logits
        logits_BLV += text_bias(self.bpe, vocab, logits_BLV)
        chosen_BL = logits_BLV.gather(2, ids_BL[:, 1:, None])[..., 0] - logits_BLV.logsumexp(2)
        for window, row, length in zip(windows, chosen_BL.cpu().double(), lengths_B, strict=True):
            window.out[window.places] = row[length - len(window.places) : length]
            scored(window.size)


@dataclass(frozen=True, slots=True)
class _TokenWindow:
    """One forward's row: BOS, context and targets; the last targets' scores go to out[places]."""

    ids: list[int]
    out: Tensor
    places: Tensor
    size: int  # bytes that are scored
