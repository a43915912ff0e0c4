"""`SpanCorruption`: write the spans that were cut out of a text (Raffel et al. 2020; ByT5).

Of n bytes N = round(noise n) are cut out, in S = round(N / span) spans of random lengths, with text
before each of them. The source is the text with one sentinel for each span, the target is each
sentinel followed by its span, then EOS. Lengths are random compositions, all equally likely, drawn
as a pure function of (seed, sample number). Documents are joined without anything between them and
cut into rows, as in ByT5's pre-training; a row is as long as its source, with EOS, has room for in
train.context_bytes: for 1,024 that is 1,193 bytes and a target of 189.

The sentinels are symbols of the vocabulary. What they are called in a table is the model's matter:
in ByT5's they are the highest bytes, from 258 down. Training figures count every target; held-out
figures count the bytes alone.
"""

from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bytelm.data.batch import IGNORE, Batch, id_rows
from bytelm.data.order import Draws, Integers
from bytelm.errors import DataError
from bytelm.objectives.base import Objective, ObjectiveConfig, RowSource, Setup
from bytelm.objectives.likelihood import HeldoutBits, Likelihood
from bytelm.vocab import BYTES, END, ByteVocab

Ids = NDArray[np.int64]


class SpanCorruptionConfig(ObjectiveConfig):
    """How much is cut out, and in what pieces."""

    noise: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="share of the bytes that is cut out"
    )
    span: Annotated[float, Field(ge=1)] = Field(20.0, description="mean length of a span, in bytes")
    sentinels: Annotated[int, Field(ge=1, le=BYTES)] = Field(
        32, description="symbols for spans; a row may have as many spans"
    )


class SpanCorruption(Likelihood):
    """Prediction of spans from the text around them.

    >>> SpanCorruption(SpanCorruption.Config(), Setup()).window_length(1024)
    1193
    """

    Config = SpanCorruptionConfig
    family = "seq2seq"
    policies = ("concat", "document", "bucket", "truncate")

    def __init__(self, config: SpanCorruptionConfig, setup: Setup):
        super().__init__(config, setup)
        self.config: SpanCorruptionConfig = config
        self._first = ByteVocab(sentinels=config.sentinels)["sentinel_0"]

    @property
    def specials(self) -> tuple[str, ...]:
        """The sentinels too."""
        return (*super().specials, *(f"sentinel_{k}" for k in range(self.config.sentinels)))

    def heldout_objective(self) -> Objective:
        """Bits per byte of the spans: neither sentinels nor ends count."""
        return HeldoutSpans(self)

    def window_length(self, length: int) -> int:
        """The most bytes whose source, with EOS, takes `length` positions; `DataError` if none."""
        size = length
        while self.source_length(size + 1) <= length:
            size += 1
        noise, spans = self.sizes(size)
        if not spans or length < 3:
            raise DataError(f"a row of {length} has no room for span corruption")
        if spans > self.config.sentinels:
            raise DataError(
                f"a row of {length} has {spans} spans: raise objective.sentinels "
                f"({self.config.sentinels}), or objective.span"
            )
        return size

    def sizes(self, size: int) -> tuple[int, int]:
        """(bytes that are cut out, spans) of a text of `size` bytes."""
        if size < 2:
            return 0, 0
        noise = min(max(round(size * self.config.noise), 1), size - 1)
        return noise, min(max(round(noise / self.config.span), 1), noise, size - noise)

    def source_length(self, size: int) -> int:
        """Positions of the source of a text of `size` bytes, EOS included."""
        noise, spans = self.sizes(size)
        return size - noise + spans + 1

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """Sources and targets of these samples."""
        rows = windows.rows(samples)
        pairs = []
        for i, sample in enumerate(np.asarray(samples).tolist()):
            symbols = rows.symbols[i, : rows.lengths[i]].astype(np.int64)
            pairs.append(self.corrupt(symbols[symbols != END], sample=sample))
        sources, targets = zip(*pairs, strict=True)
        vocab = ByteVocab()
        wanted = id_rows([np.append(t, END) for t in targets], pad=IGNORE).ids
        inputs = id_rows([np.append(vocab.bos, t) for t in targets], pad=vocab.pad)
        return replace(
            inputs,
            targets=wanted,
            source=id_rows(sources, pad=vocab.pad),
            raw_bytes=int(((wanted >= 0) & (wanted < BYTES)).sum()),
        )

    def corrupt(self, data: Ids, *, sample: int) -> tuple[Ids, Ids]:
        """(source, target) of one text, both without EOS.

        >>> objective = SpanCorruption(SpanCorruption.Config(noise=0.5, span=2), Setup())
        >>> source, target = objective.corrupt(np.arange(97, 105), sample=0)
        >>> restore(source, target, first=264) == bytes(range(97, 105))
        True
        """
        noise, spans = self.sizes(len(data))
        draws = Draws("span corruption", self.setup.seed)
        kept = _composition(draws, sample, 0, total=len(data) - noise, parts=spans)
        cut = _composition(draws, sample, 1, total=noise, parts=spans)
        ends = np.cumsum(np.stack([kept, cut], axis=1).ravel())
        pieces = np.split(data, ends[:-1]) if spans else [data]
        sentinels = [np.array([self._first + k]) for k in range(spans)]
        if not spans:
            return data, data[:0]
        source = [part for k, s in enumerate(sentinels) for part in (pieces[2 * k], s)]
        target = [part for k, s in enumerate(sentinels) for part in (s, pieces[2 * k + 1])]
        return np.concatenate(source), np.concatenate(target)


class HeldoutSpans(HeldoutBits):
    """Bits per byte of the spans, under the batches of a span-corruption objective."""

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The objective's batch with every target that is no byte ignored."""
        batch = self._objective.batch(windows, samples)
        assert batch.targets is not None
        others = batch.targets >= BYTES
        return replace(batch, targets=batch.targets.masked_fill(others, IGNORE))


def restore(source: Ids, target: Ids, *, first: int) -> bytes:
    """The text that `corrupt` cut up; `first` is the id of sentinel 0."""
    spans = np.split(target, np.flatnonzero(target >= first))[1:]
    parts = [spans[i - first][1:] if i >= first else np.array([i]) for i in source.tolist()]
    return bytes(np.concatenate([*parts, source[:0]]).astype(np.uint8).tolist())


def _composition(draws: Draws, sample: int, kind: int, *, total: int, parts: int) -> Ids:
    """`parts` positive numbers of sum `total`, every such list equally likely: a random set of
    parts - 1 of the total - 1 places between units (Floyd's algorithm)."""
    if not parts:
        return np.zeros(0, dtype=np.int64)
    chosen: set[int] = set()
    for k, last in enumerate(range(total - parts, total - 1)):
        place = draws.integer(sample, 2 * k + kind, below=last + 1)
        chosen.add(last if place in chosen else place)
    return np.diff(np.array([0, *(place + 1 for place in sorted(chosen)), total]))
