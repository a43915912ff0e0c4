"""`Fim`: fill-in-the-middle (Bavarian et al. 2022, arXiv 2207.14255).

FIM reorders documents inside a window (the context-level variant; with the policies `document` and
`pack` the windows hold whole documents, which is the document-level variant). A transformed piece
of n bytes takes n + 4 positions:

    PSM   PREFIX prefix SUFFIX suffix MIDDLE middle EOS
    SPM2  PREFIX SUFFIX suffix MIDDLE prefix middle EOS

Windows are cut shorter by the room this needs, so no sample ever loses its end. The prefix of SPM2
follows MIDDLE, so both decode by the same inverse. Loss is on all bytes and the end; the three
markers are inputs only, because a model that learned to predict them would take probability from
every document's first byte. All randomness is a pure function of (seed, sample number).
"""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.order import Draws, Integers
from bytelm.errors import DataError
from bytelm.objectives.base import Objective, ObjectiveConfig, RowSource, Setup
from bytelm.objectives.causal import Causal
from bytelm.objectives.likelihood import Likelihood
from bytelm.vocab import BYTES, END, ByteVocab

_VOCAB = ByteVocab()
_SYMBOLS = ("fim_prefix", "fim_suffix", "fim_middle")
_PREFIX, _SUFFIX, _MIDDLE = (_VOCAB[name] for name in _SYMBOLS)
MARKERS = 3  # positions a transformed document takes beyond its bytes and its end

Ids = NDArray[np.integer]
Mode = Literal["psm", "spm"]
Unit = Literal["byte", "codepoint"]
Share = Annotated[float, Field(ge=0, le=1)]


class FimConfig(ObjectiveConfig):
    """Fill-in-the-middle on a share `rate` of the pieces of a window."""

    rate: Share = Field(0.5, description="probability that a piece is reordered")
    spm_rate: Share = Field(
        0.5, description="share of those in SPM2 order (suffix first), the rest in PSM order"
    )
    unit: Unit = Field(
        "byte", description="cut between any two bytes, or only where a UTF-8 character starts"
    )
    documents: Annotated[int, Field(ge=1)] = Field(
        4,
        description="pieces of one window that may be reordered (the longest ones); each reserves "
        "4 positions",
    )


class Fim(Likelihood):
    """Next-byte prediction over pieces that are partly reordered.

    >>> Fim(Fim.Config(documents=2), Setup()).window_length(1024)
    1016
    """

    Config = FimConfig

    def __init__(self, config: FimConfig, setup: Setup):
        super().__init__(config, setup)
        self.config: FimConfig = config

    @property
    def specials(self) -> tuple[str, ...]:
        """The markers too: a model trained so can infill."""
        return (*super().specials, *_SYMBOLS)

    def heldout_objective(self) -> Objective:
        """A model that learns to infill is still judged by plain next-byte prediction."""
        return Causal(Causal.Config(), self.setup).heldout_objective()

    def window_length(self, length: int) -> int:
        """`length` less the room for markers and ends; `DataError` if nothing would be left."""
        room = self.config.documents * (MARKERS + 1)
        if length <= room:
            raise DataError(
                f"a row of {length} has no room for fim with {self.config.documents} documents"
            )
        return length - room

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The batch of these samples, rows longer than the windows by the reserved room."""
        rows = windows.rows(samples)
        width = rows.symbols.shape[1] + self.config.documents * (MARKERS + 1)
        targets = np.full((len(samples), width), IGNORE, dtype=np.int64)
        ids = np.full_like(targets, _VOCAB.pad)
        document_ids = np.zeros_like(targets)
        lengths = np.zeros(len(samples), dtype=np.int64)
        for i, sample in enumerate(np.asarray(samples).tolist()):
            pieces = self.transform(rows.symbols[i, : rows.lengths[i]], sample=sample)
            row = np.concatenate(pieces)
            lengths[i] = n = len(row)
            targets[i, :n] = np.where((row < BYTES) | (row == END), row, IGNORE)
            ids[i, :n] = np.concatenate([[_VOCAB.bos], row[:-1]])
            begins = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
            ids[i, begins] = _VOCAB.bos
            document_ids[i, begins[1:]] = 1
        return Batch(
            ids=torch.from_numpy(ids),
            targets=torch.from_numpy(targets),
            lengths=torch.from_numpy(lengths),
            document_ids=None if rows.single else torch.from_numpy(document_ids.cumsum(axis=1)),
            raw_bytes=int(((targets >= 0) & (targets < BYTES)).sum()),
        )

    def transform(self, stream: Ids, *, sample: int) -> list[Ids]:
        """The pieces of one window (each up to its END), reordered where the draws say so."""
        pieces = np.split(stream, np.flatnonzero(stream[:-1] == END) + 1)
        draws = Draws("fim", self.setup.seed)
        longest = np.argsort([-len(piece) for piece in pieces], kind="stable")[
            : self.config.documents
        ]
        for number in longest.tolist():
            first = 4 * number
            if draws.uniform(sample, first) >= self.config.rate:
                continue
            data = pieces[number][pieces[number] != END]
            mode: Mode = "spm" if draws.uniform(sample, first + 1) < self.config.spm_rate else "psm"
            places = cut_places(data, unit=self.config.unit)
            cuts = [
                int(places[draws.integer(sample, first + k, below=len(places))]) for k in (2, 3)
            ]
            pieces[number] = fim(data, cuts=(min(cuts), max(cuts)), mode=mode)
        return pieces


def cut_places(data: Ids, *, unit: Unit) -> Integers:
    """Where a document may be cut: everywhere, or at its ends and before UTF-8 lead bytes."""
    if unit == "byte":
        return np.arange(len(data) + 1)
    starts = np.flatnonzero((data & 0xC0) != 0x80)
    return np.unique(np.concatenate([[0], starts, [len(data)]]))


def fim(data: Ids, *, cuts: tuple[int, int], mode: Mode) -> Ids:
    """One document reordered, markers and END included: n + 4 ids.

    >>> fim(np.frombuffer(b"abc", np.uint8), cuts=(1, 2), mode="psm").tolist()
    [261, 97, 262, 99, 263, 98, 256]
    """
    prefix, middle, suffix = (part.astype(np.int64) for part in np.split(data, cuts))
    order = {
        "psm": ([_PREFIX], prefix, [_SUFFIX], suffix, [_MIDDLE], middle, [END]),
        "spm": ([_PREFIX, _SUFFIX], suffix, [_MIDDLE], prefix, middle, [END]),
    }
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in order[mode]])


def unfim(ids: Ids) -> bytes:
    """The document that `fim` reordered; `DataError` if the markers are not one each in order.

    >>> unfim(fim(np.frombuffer(b"abc", np.uint8), cuts=(1, 2), mode="spm"))
    b'abc'
    """
    special = np.flatnonzero(ids >= BYTES)
    if ids[special].tolist() != [_PREFIX, _SUFFIX, _MIDDLE, END] or special[0] != 0:
        raise DataError(f"not one fill-in-the-middle document: specials {ids[special].tolist()}")
    _, suffix, middle, end = special
    if end != len(ids) - 1:
        raise DataError("ids follow the end of the fill-in-the-middle document")
    parts = (ids[1:suffix], ids[middle + 1 : end], ids[suffix + 1 : middle])
    return b"".join(part.astype(np.uint8).tobytes() for part in parts)
