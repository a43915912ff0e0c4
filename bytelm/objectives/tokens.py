"""`Tokens`: predict the next id of a tokenizer, over the same windows of bytes.

Windows stay windows of bytes, in the same order as for a byte model: which bytes a step sees is
still a pure function of (seed, epoch, index), a run resumes exactly, and each byte is inside one
target per epoch. Every document of a window is encoded on its own, so a token never reaches across
a window's edge, and ids depend on nothing but the window. Windows differ in tokens far more than
in bytes (zeros take few, compressed data many), so the sequences of a batch share rows by best fit
instead of being padded to the longest. `raw_bytes` counts the bytes the targets stand for: summed
nats over it is bits per byte as for any other model.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.order import Integers
from bytelm.data.packing import pack_documents
from bytelm.objectives.base import ObjectiveConfig, RowSource
from bytelm.objectives.likelihood import Likelihood
from bytelm.vocab import END, TokenVocab

if TYPE_CHECKING:
    from bytelm.tokenizer import BinaryBPE

FILE = "tokenizer.json"


class TokensConfig(ObjectiveConfig):
    """The tokenizer is named by data.tokenizer; there is nothing else to set."""


class Tokens(Likelihood):
    """Next-token prediction over the ids of the setup's tokenizer.

    >>> from bytelm.objectives import Setup
    >>> from bytelm.tokenizer import BinaryBPE
    >>> bpe = BinaryBPE.train([b"abababab"], vocab_sizes=[265])[265]
    >>> objective = Tokens(Tokens.Config(), Setup(open_tokenizer=lambda: bpe))
    >>> objective.sequence(np.frombuffer(b"ababa", np.uint8)).tolist()
    [264, 104]
    """

    Config = TokensConfig
    reads = "tokens"

    @property
    def bpe(self) -> "BinaryBPE":
        """The tokenizer whose ids the model reads."""
        return self.setup.tokenizer

    @cached_property
    def vocab(self) -> TokenVocab:  # type: ignore[override]
        """The tokenizer's ids."""
        from bytelm.tokenizer.vocabulary import token_vocab  # brings the compiled codec with it

        return token_vocab(self.bpe)

    @property
    def end(self) -> int:
        """The tokenizer's end symbol."""
        return self.vocab.eos

    def files(self) -> dict[str, bytes]:
        """The tokenizer: with it a run directory is all that other commands need."""
        return {FILE: self.bpe.to_json()}

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The batch of these samples; as wide as its longest sequence, often with fewer rows than
        samples."""
        rows = windows.rows(samples)
        sequences = [
            self.sequence(document)
            for symbols, length in zip(rows.symbols, rows.lengths.tolist(), strict=True)
            for document in _documents(symbols[:length])
        ]
        return self._pack(sequences, raw_bytes=int(rows.lengths.sum()) - rows.ends)

    def sequence(self, symbols: NDArray[np.integer]) -> NDArray[np.int64]:
        """The ids of one document's bytes, and of its END if it is there."""
        ended = bool(len(symbols)) and symbols[-1] == END
        data = symbols[: len(symbols) - ended].astype(np.uint8)
        ids = self.bpe.encode(data.tobytes()).astype(np.int64)
        return np.append(ids, self.vocab.eos) if ended else ids

    def _pack(self, sequences: list[NDArray[np.int64]], *, raw_bytes: int) -> Batch:
        """Sequences side by side in rows; those that share a row never see each other."""
        ends = np.cumsum([len(sequence) for sequence in sequences])
        begins = np.concatenate([[0], ends[:-1]])
        stream = np.concatenate(sequences)
        width = int((ends - begins).max())
        first, begins, ends = pack_documents(begins, ends, length=width)
        targets = np.full((len(first) - 1, width), IGNORE, dtype=np.int64)
        ids = np.full_like(targets, self.vocab.pad)
        document_ids = np.zeros_like(targets)
        lengths = np.zeros(len(targets), dtype=np.int64)
        for row in range(len(targets)):
            for piece in range(first[row], first[row + 1]):
                place = slice(lengths[row], lengths[row] + ends[piece] - begins[piece])
                targets[row, place] = stream[begins[piece] : ends[piece]]
                ids[row, place] = [self.vocab.bos, *stream[begins[piece] : ends[piece] - 1]]
                document_ids[row, place.start :] = piece - first[row]
                lengths[row] = place.stop
        alone = len(sequences) == len(targets)
        return Batch(
            ids=torch.from_numpy(ids),
            targets=torch.from_numpy(targets),
            lengths=torch.from_numpy(lengths),
            document_ids=None if alone else torch.from_numpy(document_ids),
            raw_bytes=raw_bytes,
        )


def _documents(symbols: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """A window cut after each END."""
    return np.split(symbols, np.flatnonzero(symbols[:-1] == END) + 1)
