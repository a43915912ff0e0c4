"""`Objective`: the one plug between data and model.

An objective says which symbols the vocabulary needs, how rows of data become a `Batch`, which
objective judges held-out data, and how a model's outputs become figures. The trainer, evaluation,
the display and the choice of the best checkpoint know figures and never a kind. A new objective is
one file with a `Config`, and one line in `bytelm.registry` or an entry point in the group
`bytelm.objectives`.

Figures are made in two steps, so that they mean the same however a step was cut: `measure` gives
sums of one batch, which are added over micro-batches and ranks, and `figures` divides at the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from bytelm.data.batch import IGNORE, Batch
from bytelm.data.corpus import Corpus
from bytelm.data.corpus.records import RecordFields
from bytelm.data.order import Integers
from bytelm.data.windows import Policy, Rows
from bytelm.vocab import ByteVocab, Vocab

if TYPE_CHECKING:
    from bytelm.arch.base import Family, ModelOutput
    from bytelm.tokenizer import BinaryBPE

T = TypeVar("T")
Sums = Mapping[str, float | Tensor]  # additive over batches; tensors keep their shape


class RowSource(Protocol):
    """Where an objective gets its rows: `Windows`, or a `Mixture` of them."""

    @property
    def corpus(self) -> Corpus: ...

    def rows(self, samples: Integers) -> Rows: ...


class ObjectiveConfig(BaseModel):
    """Base of every objective's settings, the fields of [objective] beside `kind`: frozen, an
    unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    def record_fields(self) -> RecordFields | None:
        """Which fields of records are read. None: files are read as they stand."""
        return None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an objective may ask for while it is made; each is opened on first use.

    seed            of everything random
    open_corpus     -> the training corpus (all of it, in the order of `Rows.documents`)
    open_tokenizer  -> the tokenizer that data.tokenizer names
    stored          `model_arguments()` of a finished run, which is judged without training data
    """

    seed: int = 0
    stored: Mapping[str, Any] = field(default_factory=dict)
    open_corpus: Callable[[], Corpus] | None = None
    open_tokenizer: "Callable[[], BinaryBPE] | None" = None

    @cached_property
    def corpus(self) -> Corpus:
        """The training corpus."""
        assert self.open_corpus is not None, "this objective is made without data"
        return self.open_corpus()

    @cached_property
    def tokenizer(self) -> "BinaryBPE":
        """The tokenizer of the recipe."""
        assert self.open_tokenizer is not None, "this objective is made without a tokenizer"
        return self.open_tokenizer()


class Objective(ABC):
    """What a model learns, and how well it does. Made once per run, shared by every part of it.

    Config             the class that validates [objective]
    family             which models it can train
    better             whether a lower or a higher headline figure is better
    policies           the window policies (data.policy) it can work with
    heldout_policy     the policy of held-out windows; None = the one of training
    heldout_shuffle    whether held-out windows are shuffled (once) before a part of them is judged
    reads              what it needs to read: bytes, tokens (which needs data.tokenizer), or either
    curriculum         whether its rows may be cut shorter (data.curriculum)
    """

    Config: ClassVar[type[ObjectiveConfig]]
    family: "ClassVar[Family]" = "causal"
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    policies: ClassVar[Sequence[Policy]] = ("concat", "pack", "document", "bucket", "record")
    heldout_policy: ClassVar[Policy | None] = None
    heldout_shuffle: ClassVar[bool] = False
    reads: ClassVar[Literal["bytes", "tokens", "either"]] = "bytes"
    curriculum: ClassVar[bool] = False

    def __init__(self, config: ObjectiveConfig, setup: Setup):
        self.config, self.setup = config, setup

    @property
    def vocab(self) -> Vocab:
        """The ids of the model: bytes and the special symbols, with as many sentinels as
        `specials` names."""
        return ByteVocab(sentinels=sum(name.startswith("sentinel_") for name in self.specials))

    @property
    @abstractmethod
    def specials(self) -> tuple[str, ...]:
        """Names of the special symbols that the model meets in training. They are stored with it,
        and the only ones it can be prompted with."""

    def model_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model besides config and vocabulary, JSON values: they are
        stored in config.json under the same names."""
        return {}

    def files(self) -> dict[str, bytes]:
        """Name -> content of files that a run directory needs to be used without its data."""
        return {}

    def window_length(self, length: int) -> int:
        """How many positions of data a row of `length` ids has room for; `DataError` if none."""
        return length

    @abstractmethod
    def batch(self, windows: RowSource, samples: Integers) -> Batch:
        """The batch of these sample numbers: a pure function of them, of the data and the seed."""

    def heldout_objective(self) -> "Objective":
        """What judges held-out data, for the same model."""
        return self

    def count(self, batch: Batch) -> int:
        """Loss terms of a batch: `ModelOutput.loss` is their mean. By default its targets."""
        assert batch.targets is not None, "a training batch has targets"
        return int((batch.targets != IGNORE).count_nonzero())

    @abstractmethod
    def measure(self, batch: Batch, output: "ModelOutput") -> Sums:
        """Sums over one batch (as `batch` made it, or a part of it) from the model's output on it.

        The same names and shapes for every batch, also for one without a row.
        """

    @abstractmethod
    def figures(self, sums: Sums) -> dict[str, float]:
        """Figures of summed measurements, the headline first. `loss`, where given, is in nats."""

    def is_better(self, value: float, best: float) -> bool:
        """Whether a headline figure beats the best one so far."""
        return value < best if self.better == "lower" else value > best

    def details(self, sums: Sums) -> dict[str, Any]:
        """What evaluation.json holds besides the figures: JSON values."""
        return {}

    def report(self, sums: Sums) -> str:
        """The figures, and what else a person wants to see, as text of one or more lines."""
        return "\n".join(f"{value:10.4f}  {name}" for name, value in self.figures(sums).items())


class PerCorpus(Generic[T]):
    """Something computed once per corpus, of which a run has a few: its training data, each part of
    a mixture, its held-out data."""

    def __init__(self, compute: Callable[[Corpus], T]):
        self._compute = compute
        self._known: list[tuple[Corpus, T]] = []

    def of(self, corpus: Corpus) -> T:
        """What `compute` gave for this very corpus."""
        for known, value in self._known:
            if known is corpus:
                return value
        self._known.append((corpus, self._compute(corpus)))
        return self._known[-1][1]


def add_sums(total: Sums, more: Sums) -> dict[str, float | Tensor]:
    """Both measurements together. An empty `total` counts as zeros.

    >>> add_sums({"nats": 1.0}, {"nats": 2.0})
    {'nats': 3.0}
    """
    assert not total or total.keys() == more.keys(), f"{list(total)} and {list(more)} differ"
    return {name: total[name] + value if total else value for name, value in more.items()}
