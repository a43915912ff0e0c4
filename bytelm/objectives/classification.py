"""`Classification`: tell the class of a document from its bytes, with an encoder.

The class of a document is something the corpus knows about it (`labels`): the sub-folder it lies
in, a column of a built corpus, or a field of its record. The classes are those of the training
data, sorted; they are stored with the model, and held-out data with another one is refused by name.

A row never holds two documents. With data.policy = "truncate" a document is its first
train.context_bytes bytes, in training too; "document" and "bucket" train on all of its windows,
each with the document's class. Held-out documents are always judged once each, by their first
window, so accuracy is per document whatever the policy. What is left out is said when a run begins.
"""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bytelm.data.batch import IGNORE, Batch, id_rows
from bytelm.data.corpus import Corpus
from bytelm.data.corpus.records import RecordFields
from bytelm.data.order import Integers
from bytelm.errors import DataError
from bytelm.objectives.base import (
    Objective,
    ObjectiveConfig,
    PerCorpus,
    RowSource,
    Setup,
    Sums,
)
from bytelm.vocab import END, ByteVocab, Vocab

if TYPE_CHECKING:
    from bytelm.arch.base import ModelOutput
    from bytelm.tokenizer import BinaryBPE

# what every corpus knows; any other name is a field of records or a column built from one
_KNOWN = ("folder", "group", "media", "path", "source")
_HINTS = {
    "folder": ": name the files by a pattern that begins above the folders, such as DIR/*/*, or "
    "build a corpus from DIR"
}
FILE = "tokenizer.json"


class ClassificationConfig(ObjectiveConfig):
    """One class per document."""

    labels: str = Field(
        description="where the class comes from: 'folder' (the sub-folder a document lies in), "
        "another metadata column of a corpus, or a field of JSON or Parquet records"
    )
    text: str | None = Field(
        None, description="field of records that holds the text; default: 'text'"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.text is not None and self.labels in _KNOWN:
            raise ValueError(
                f"objective.text has no effect: objective.labels is {self.labels!r}, which is no "
                "field of records. Remove it or change objective.labels"
            )
        return self

    @property
    def record_fields(self) -> RecordFields | None:
        """The text and the class."""
        if self.labels in _KNOWN:
            return None
        text = self.text or "text"
        named = {text: "objective.text", self.labels: "objective.labels"}
        return RecordFields(text=text, columns=(self.labels,), settings=named)


class Classification(Objective):
    """Cross-entropy of a document's class; judged by accuracy and macro-averaged F1."""

    Config = ClassificationConfig
    family = "encoder"
    better = "higher"
    policies = ("truncate", "document", "bucket")
    heldout_policy = "truncate"
    reads = "either"
    heldout_shuffle = True  # else a prefix of held-out data sorted by class would hold one class

    def __init__(self, config: ClassificationConfig, setup: Setup):
        super().__init__(config, setup)
        self.config: ClassificationConfig = config
        self._targets = PerCorpus(self._label_numbers)

    @property
    def bpe(self) -> "BinaryBPE | None":
        """The tokenizer whose ids the model reads; None where it reads bytes."""
        return None if self.setup.open_tokenizer is None else self.setup.tokenizer

    @cached_property
    def vocab(self) -> Vocab:  # type: ignore[override]
        """Bytes, or the tokenizer's ids."""
        if self.bpe is None:
            return ByteVocab()
        from bytelm.tokenizer.vocabulary import token_vocab  # brings the compiled codec with it

        return token_vocab(self.bpe)

    @property
    def specials(self) -> tuple[str, ...]:
        """None: rows are bytes, or what a tokenizer makes of them."""
        return ()

    def files(self) -> dict[str, bytes]:
        """The tokenizer, if there is one."""
        return {} if self.bpe is None else {FILE: self.bpe.to_json()}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's logits: those of a stored run, or of the
        training data. `DataError` if there are fewer than two."""
        if "labels" in self.setup.stored:
            return tuple(self.setup.stored["labels"])
        found = tuple(sorted(set(self._values(self.setup.corpus))))
        if len(found) < 2:
            raise DataError(
                f"every training document has the same {self.config.labels} "
                f"({', '.join(found)}): a classifier needs at least two classes"
            )
        return found

    def model_arguments(self) -> dict[str, Any]:
        """The classes."""
        return {"labels": list(self.labels)}

    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """Rows of bytes with the class of their document. A row without a byte, which is the end of
        a document that filled the row before, has no class."""
        rows = windows.rows(samples)
        lengths = rows.lengths - (rows.symbols[np.arange(len(samples)), rows.lengths - 1] == END)
        texts = [
            symbols[:length].astype(np.uint8)
            for symbols, length in zip(rows.symbols, lengths.tolist(), strict=True)
        ]
        if self.bpe is not None:
            texts = [self.bpe.encode(text.tobytes()) for text in texts]
        labels = self._targets.of(windows.corpus)[rows.documents]
        empty = np.diff(windows.corpus.offsets)[rows.documents] == 0
        labels[(lengths == 0) & ~empty] = IGNORE
        return replace(
            id_rows(texts, pad=self.vocab.pad),
            labels=torch.from_numpy(labels),
            raw_bytes=int(lengths.sum()),
        )

    def count(self, batch: Batch) -> int:
        """Rows with a class."""
        assert batch.labels is not None, "a batch of this objective has labels"
        return int((batch.labels != IGNORE).count_nonzero())

    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """nats of the classes, and the confusion table (classes, classes): true by predicted."""
        assert batch.labels is not None and output.loss is not None
        labelled, size = batch.labels != IGNORE, len(self.labels)
        predicted = output.logits.detach().argmax(dim=-1).cpu()
        pairs = batch.labels[labelled] * size + predicted[labelled]
        terms = len(pairs)
        return {
            "nats": float(output.loss.detach()) * terms if terms else 0.0,
            "confusion": torch.bincount(pairs, minlength=size * size).view(size, size).double(),
        }

    def figures(self, sums: Sums) -> dict[str, float]:
        """`accuracy`, `macro_f1` (the mean of F1 = 2 right / (true + predicted) over the classes
        that are true or predicted at all) and `loss`, nats per document."""
        table = _table(sums)
        right, marginals = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
        documents = max(float(table.sum()), 1.0)
        f1 = 2 * right[marginals > 0] / marginals[marginals > 0]
        return {
            "accuracy": float(right.sum()) / documents,
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "loss": float(sums["nats"]) / documents,
        }

    def details(self, sums: Sums) -> dict[str, Any]:
        """`documents`, `labels`, and the `confusion` table as rows of true classes."""
        table = _table(sums).astype(int)
        return {
            "documents": int(table.sum()),
            "labels": list(self.labels),
            "confusion": table.tolist(),
        }

    def report(self, sums: Sums) -> str:
        """The figures and the confusion table."""
        return f"{super().report(sums)}\n\n{confusion_text(_table(sums), self.labels)}"

    def _label_numbers(self, corpus: Corpus) -> NDArray[np.int64]:
        """(documents,) the number of each document's class."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        values = self._values(corpus)
        for document, label in enumerate(values):
            if label not in numbers:
                raise DataError(
                    f"document {document} ({corpus.column('source')[document]}) has the "
                    f"{self.config.labels} {label!r}, which no training document has: known are "
                    f"{', '.join(self.labels)}"
                )
        return np.array([numbers[label] for label in values], dtype=np.int64)

    def _values(self, corpus: Corpus) -> list[str]:
        """The label of each document, as the corpus knows it."""
        values = corpus.column(self.config.labels)
        for document, value in enumerate(values):
            if value is None:
                raise DataError(
                    f"document {document} ({corpus.column('source')[document]}) has no "
                    f"{self.config.labels}, from which objective.labels = "
                    f"{self.config.labels!r} takes its class{_HINTS.get(self.config.labels, '')}"
                )
        return [str(value) for value in values]


def confusion_text(table: NDArray[np.float64], labels: tuple[str, ...]) -> str:
    """A confusion table as text: a row per true class, a numbered column per predicted one.

    >>> print(confusion_text(np.array([[3.0, 1.0], [0.0, 2.0]]), ("elf", "pe")))
    true, predicted    1    2  recall
       1  elf          3    1    75 %
       2  pe           .    2   100 %
    """
    corner = "true, predicted"
    wide = max(len(corner), *(len(label) + 6 for label in labels))
    columns = "".join(f"{number:5}" for number in range(1, len(labels) + 1))
    lines = [f"{corner:{wide}}{columns}  recall"]
    for number, (label, row) in enumerate(zip(labels, table, strict=True)):
        name = f"{number + 1:4}  {label}"
        counts = "".join(f"{int(count) or '.':>5}" for count in row)
        recall = f"{100 * row[number] / row.sum():6.0f} %" if row.sum() else "     -"
        lines.append(f"{name:{wide}}{counts}{recall}")
    return "\n".join(lines)


def _table(sums: Sums) -> NDArray[np.float64]:
    return torch.as_tensor(sums["confusion"]).numpy()
