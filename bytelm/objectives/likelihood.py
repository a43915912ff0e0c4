"""What objectives over the next symbol share: nats of the targets, and bits per byte.

Training figures count every target, the ends of documents too. Held-out data is judged by bytes
alone: `HeldoutBits` masks the ends, so that its figure can be compared along a run, between
objectives of one vocabulary, and with compressors. A byte model's targets are bytes; for a subword
model the nats are those of each window's own canonical tokens, divided by the bytes they stand for:
an upper bound on the bits of the same windows under the exact byte model, which adds up every way
to write the same bytes.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.order import Integers
from bytelm.objectives.base import Objective, ObjectiveConfig, RowSource, Sums
from bytelm.vocab import END, Vocab

if TYPE_CHECKING:
    from bytelm.arch.base import ModelOutput


class Likelihood(Objective):
    """An objective whose loss is the mean cross-entropy of the targets."""

    @property
    def specials(self) -> tuple[str, ...]:
        """BOS begins what the model reads and EOS ends what it predicts."""
        return ("bos", "eos")

    @property
    def end(self) -> int:
        """The id by which targets say that a document ends."""
        return END

    @abstractmethod
    def batch(self, windows: RowSource, samples: Integers) -> Batch: ...

    def heldout_objective(self) -> Objective:
        """The same batches, without the ends of documents."""
        return HeldoutBits(self)

    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """nats of the targets, how many there are, and the raw bytes they stand for."""
        assert output.loss is not None, "the batch has targets"
        terms = self.count(batch)
        nats = float(output.loss.detach()) * terms if terms else 0.0
        return {"nats": nats, "targets": terms, "bytes": batch.raw_bytes}

    def figures(self, sums: Sums) -> dict[str, float]:
        """`bits_per_byte` of the targets, ends included, and `loss`, nats per target."""
        nats, targets, size = (float(sums[name]) for name in ("nats", "targets", "bytes"))
        return {
            "bits_per_byte": nats / max(size, 1) / math.log(2),
            "loss": nats / max(targets, 1),
        }


class HeldoutBits(Objective):
    """Bits per byte of held-out data, under the batches of another objective.

    >>> from bytelm.objectives.causal import Causal
    >>> judge = Causal(Causal.Config(), Setup()).heldout_objective()
    >>> judge.figures({"nats": 8 * math.log(2), "targets": 4, "bytes": 4})
    {'bits_per_byte': 2.0}
    """

    Config = ObjectiveConfig

    def __init__(self, objective: Likelihood):
        super().__init__(objective.config, objective.setup)
        self._objective = objective

    @property
    def vocab(self) -> Vocab:
        """Those of the objective judged."""
        return self._objective.vocab

    @property
    def specials(self) -> tuple[str, ...]:
        """Those of the objective judged."""
        return self._objective.specials

    def window_length(self, length: int) -> int:
        """That of the objective judged."""
        return self._objective.window_length(length)

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The objective's batch with every end ignored."""
        batch = self._objective.batch(windows, samples)
        assert batch.targets is not None
        ends = batch.targets == self._objective.end
        return replace(batch, targets=batch.targets.masked_fill(ends, IGNORE))

    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """As in training."""
        return self._objective.measure(batch, output)

    def figures(self, sums: Sums) -> dict[str, float]:
        """`bits_per_byte`: the targets' nats over ln 2 and over raw bytes."""
        return {"bits_per_byte": float(sums["nats"]) / math.log(2) / max(float(sums["bytes"]), 1)}
