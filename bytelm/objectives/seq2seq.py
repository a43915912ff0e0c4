"""`Seq2Seq`: predict a target byte by byte from a source that an encoder reads.

The data are records (JSON lines, Parquet, plain or compressed) with a field for each of the two. A
pair is one row: no source and no target is ever cut, so a longer one than the recipe has room for
is an error that names it. Training figures are those of next-byte prediction over the targets;
held-out pairs are judged by bits per byte of the targets (ends not counted, as for any model of
bytes) and by `exact_match`, the share of targets of which every byte and the end is the model's
first choice: the share that greedy decoding gets right.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch.nn.functional as F
from pydantic import Field

from bytelm.data.batch import IGNORE, Batch, byte_rows
from bytelm.data.corpus import Corpus
from bytelm.data.corpus.records import RecordFields
from bytelm.data.order import Integers
from bytelm.data.windows import causal_batch
from bytelm.errors import DataError
from bytelm.objectives.base import (
    Objective,
    ObjectiveConfig,
    PerCorpus,
    RowSource,
    Setup,
    Sums,
)
from bytelm.objectives.likelihood import Likelihood
from bytelm.vocab import BYTES, OUTCOMES

if TYPE_CHECKING:
    from bytelm.arch.base import ModelOutput


class Seq2SeqConfig(ObjectiveConfig):
    """Pairs of a source and a target."""

    source: str = Field("source", description="field of a record that the encoder reads")
    target: str = Field("target", description="field of a record that is predicted")
    source_bytes: Annotated[int, Field(ge=1)] = Field(
        1024, description="longest source that is accepted, in bytes"
    )

    @property
    def record_fields(self) -> RecordFields:
        """Both."""
        named = {self.source: "objective.source", self.target: "objective.target"}
        return RecordFields(text=self.target, byte_columns=(self.source,), settings=named)


class Seq2Seq(Likelihood):
    """Next-byte prediction of targets, given sources."""

    Config = Seq2SeqConfig
    family = "seq2seq"
    policies = ("truncate", "document", "bucket")

    def __init__(self, config: Seq2SeqConfig, setup: Setup):
        super().__init__(config, setup)
        self.config: Seq2SeqConfig = config
        self._sources = PerCorpus(self._read_sources)

    def heldout_objective(self) -> Objective:
        """Bits per byte and exact matches."""
        return HeldoutPairs(self)

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """Targets as in next-byte prediction, and the source of each row."""
        rows = windows.rows(samples)
        sources = self._sources.of(windows.corpus)
        batch = causal_batch(rows)
        whole = np.diff(windows.corpus.offsets)[rows.documents] + 1
        if (cut := rows.lengths != whole).any():
            document = int(rows.documents[cut][0])
            raise DataError(
                f"the target of pair {document} ({windows.corpus.column('path')[document]}) has "
                f"{int(whole[cut][0]) - 1} bytes, and a row has room for "
                f"{int(rows.lengths[cut].max()) - 1} and the end: raise train.context_bytes"
            )
        texts = [sources[document] for document in rows.documents.tolist()]
        return replace(batch, source=byte_rows(texts))

    def _read_sources(self, corpus: Corpus) -> list[bytes]:
        """The source of each pair."""
        sources = corpus.column(self.config.source)
        for pair, source in enumerate(sources):
            if len(source) > self.config.source_bytes:
                raise DataError(
                    f"the source of pair {pair} ({corpus.column('path')[pair]}) has "
                    f"{len(source)} bytes: raise objective.source_bytes "
                    f"({self.config.source_bytes}), or shorten it"
                )
        return sources


class HeldoutPairs(Objective):
    """Judges a sequence-to-sequence model: bits per byte of targets, and exact matches."""

    Config = Seq2SeqConfig
    family = "seq2seq"

    def __init__(self, objective: Seq2Seq):
        super().__init__(objective.config, objective.setup)
        self._objective = objective

    @property
    def specials(self) -> tuple[str, ...]:
        """Those of the objective judged."""
        return self._objective.specials

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """As in training."""
        return self._objective.batch(windows, samples)

    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """nats of the bytes, how many there are, pairs, and those that match exactly."""
        assert batch.targets is not None
        # the distribution of texts, as in generation: no other symbol can be in a target
        logits, targets = output.logits[..., :OUTCOMES].detach().cpu().float(), batch.targets
        nats = F.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none"
        )
        right = (logits.argmax(dim=-1) == targets) | (targets == IGNORE)
        is_byte = (targets >= 0) & (targets < BYTES)
        return {
            "nats": float(nats[is_byte].double().sum()),
            "bytes": float(is_byte.sum()),
            "exact": float(right.all(dim=1).sum()),
            "pairs": float(len(targets)),
        }

    def figures(self, sums: Sums) -> dict[str, float]:
        """`bits_per_byte` and `exact_match`."""
        return {
            "bits_per_byte": float(sums["nats"]) / math.log(2) / max(float(sums["bytes"]), 1),
            "exact_match": float(sums["exact"]) / max(float(sums["pairs"]), 1),
        }
