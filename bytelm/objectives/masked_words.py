"""`MaskedWords`: whole words are masked, and their pieces predicted from the words around.

Words are those of `nn/words.py` (with the space in front). A chosen word is replaced
by one MASK, whatever its length, so that neither its bytes nor their number can be seen, and its
targets are the up to M pieces that the tokenizer makes of it, then a stop. Words of more than M
pieces are never chosen, nor are the first and the last of a row, which may have been cut. The same
words are masked whether the model reads bytes or pieces: a pure function of the seed, the sample
and the bytes. Held-out words are judged by bits per byte of what was masked, stops included, and by
the share of words of which every piece and the stop is the model's first choice.
"""

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from bytelm.data.batch import IGNORE, Batch, id_rows
from bytelm.data.order import Draws, Integers
from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import RuleOptions, Stretch
from bytelm.objectives.base import Objective, ObjectiveConfig, RowSource, Setup, Sums
from bytelm.vocab import END, ByteVocab, TokenVocab, Vocab

if TYPE_CHECKING:
    from bytelm.arch.base import ModelOutput
    from bytelm.tokenizer import BinaryBPE

FILE = "tokenizer.json"


class MaskedWordsConfig(ObjectiveConfig):
    """Which words are masked, and what the model reads."""

    mask_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="probability that a word is masked"
    )
    read: Literal["bytes", "pieces"] = Field(
        "bytes", description="what the model reads: bytes, or the ids of data.tokenizer"
    )
    word_pieces: Annotated[int, Field(ge=1)] = Field(
        4, description="M, the most pieces of a word that is masked"
    )


class MaskedWords(Objective):
    """Cross-entropy of the pieces of masked words."""

    Config = MaskedWordsConfig
    family = "encoder"
    policies = ("document", "truncate", "bucket")
    reads = "tokens"

    def __init__(self, config: MaskedWordsConfig, setup: Setup):
        super().__init__(config, setup)
        self.config: MaskedWordsConfig = config
        self._known: dict[bytes, tuple[int, ...]] = {}

    @property
    def bpe(self) -> "BinaryBPE":
        """The tokenizer whose pieces are predicted."""
        return self.setup.tokenizer

    @cached_property
    def vocab(self) -> Vocab:  # type: ignore[override]
        """The ids that the model reads."""
        return ByteVocab() if self.config.read == "bytes" else self._tokens

    @cached_property
    def _tokens(self) -> TokenVocab:
        from bytelm.tokenizer.vocabulary import token_vocab  # brings the compiled codec with it

        return token_vocab(self.bpe)

    @property
    def specials(self) -> tuple[str, ...]:
        """MASK, where bytes are read; a tokenizer has its own."""
        return ("mask",) if self.config.read == "bytes" else ()

    @cached_property
    def mask(self) -> int:
        """The id that stands for a masked word."""
        return ByteVocab()["mask"] if self.config.read == "bytes" else self.bpe.special("<|mask|>")

    def model_arguments(self) -> dict[str, Any]:
        """What the head predicts."""
        return {
            "pieces": self.bpe.vocab_size,
            "word_pieces": self.config.word_pieces,
            "mask": self.mask,
            "stop": self._tokens.eos,
        }

    def files(self) -> dict[str, bytes]:
        """The tokenizer: with it a run directory is all that other commands need."""
        return {FILE: self.bpe.to_json()}

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """Rows with masked words; `targets` (B, L, M) has the pieces at each MASK."""
        rows = windows.rows(samples)
        texts = [
            symbols[:length][symbols[:length] != END].astype(np.uint8)
            for symbols, length in zip(rows.symbols, rows.lengths.tolist(), strict=True)
        ]
        numbers = np.asarray(samples).tolist()
        found = [self._row(text, n) for text, n in zip(texts, numbers, strict=True)]
        batch = id_rows([np.array(ids, dtype=np.int64) for ids, _ in found], pad=self.vocab.pad)
        targets = torch.full((*batch.ids.shape, self.config.word_pieces), IGNORE)
        for row, (_, masked) in enumerate(found):
            for place, gold in masked:
                targets[row, place, : len(gold)] = torch.tensor(gold)
        return replace(batch, targets=targets, raw_bytes=sum(map(len, texts)))

    def _row(
        self, text: NDArray[np.uint8], sample: int
    ) -> tuple[list[int], list[tuple[int, tuple[int, ...]]]]:
        """The ids of one text with some words masked, and the place and targets of each."""
        draws = Draws("masked_words", self.setup.seed)
        words = words_of(text)
        ids: list[int] = []
        masked = []
        for k, word in enumerate(words):
            inside = 0 < k < len(words) - 1
            if inside and draws.uniform(sample, k) < self.config.mask_rate:
                gold = self.pieces(word)
                if len(gold) <= self.config.word_pieces:
                    masked.append((len(ids), self._targets(gold)))
                    ids.append(self.mask)
                    continue
            ids.extend(word if self.config.read == "bytes" else self.pieces(word))
        return ids, masked

    def pieces(self, word: bytes) -> tuple[int, ...]:
        """The ids of one word."""
        if word not in self._known:
            self._known[word] = tuple(self.bpe.encode(word).tolist())
        return self._known[word]

    def _targets(self, gold: tuple[int, ...]) -> tuple[int, ...]:
        """Pieces and the stop, which M pieces do not need."""
        return gold if len(gold) == self.config.word_pieces else (*gold, self._tokens.eos)

    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """nats of the pieces and stops, how many there are, the bytes they stand for, words, and
        those of which all is the first choice."""
        assert batch.targets is not None and output.loss is not None
        targets_NM = batch.targets[(batch.targets != IGNORE).any(dim=-1)].cpu()
        right = (output.logits.detach().argmax(dim=-1).cpu() == targets_NM) | (targets_NM == IGNORE)
        terms = self.count(batch)
        sizes = self._sizes[targets_NM.clamp(min=0)].masked_fill(targets_NM == IGNORE, 0)
        return {
            "nats": float(output.loss.detach()) * terms if terms else 0.0,
            "targets": float(terms),
            "bytes": float(sizes.sum()),
            "words": float(len(targets_NM)),
            "right": float(right.all(dim=-1).sum()),
        }

    @cached_property
    def _sizes(self) -> torch.Tensor:
        """(V,) bytes of each piece; 0 for specials."""
        return torch.tensor([len(piece or b"") for piece in self.bpe.token_bytes])

    def figures(self, sums: Sums) -> dict[str, float]:
        """`bits_per_masked_byte`, `word_accuracy` and `loss`, nats per piece or stop."""
        nats, targets, size, words, right = (
            float(sums[name]) for name in ("nats", "targets", "bytes", "words", "right")
        )
        return {
            "bits_per_masked_byte": nats / math.log(2) / max(size, 1),
            "word_accuracy": right / max(words, 1),
            "loss": nats / max(targets, 1),
        }


def words_of(text: NDArray[np.uint8]) -> list[bytes]:
    """The words of a text, each with the space in front of it; joined they are the text.

    >>> words_of(np.frombuffer(b"Two words, 12", np.uint8))
    [b'Two', b' words', b',', b' 12']
    """
    if not len(text):
        return []
    ids = torch.from_numpy(text.astype(np.int64))[None]
    rule = RULES["words"](RuleOptions(dim=1))
    stretch = Stretch(x=ids[..., None], positions=torch.arange(len(text)), ids=ids)
    starts = rule.cut(stretch, rule.init_state(1, ids))[0].starts[0]
    places = [*starts.nonzero()[:, 0].tolist(), len(text)]
    data = text.tobytes()
    return [data[a:b] for a, b in zip(places, places[1:], strict=False)]
