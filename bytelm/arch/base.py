"""What every architecture is: `ByteModel`, and the three families it comes in.

`CausalModel` predicts each byte from those before it, `Seq2SeqModel` does so given a source that an
encoder has read, `EncoderModel` reads whole rows in both directions and classifies them. Trainer,
optimizer groups and the adapters to `ByteLM` know these classes and no architecture; each family
has a contract suite in `tests/arch/` that every registered architecture must pass.

Three conventions a reader may question: models return extra loss terms already scaled in `aux` (so
the trainer only adds); decode states are immutable (`nn.state.State`), so that an older state stays
valid and a beam can fork one for free; and a model itself says which of its statistics are a sign
of trouble (`symptoms`), because only it knows what they mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    Self,
    TypeVar,
    runtime_checkable,
)

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from torch import Tensor, nn

from bytelm.data.batch import IGNORE, Batch
from bytelm.errors import BytelmError
from bytelm.nn.state import State
from bytelm.nn.stepping.stepper import StateStepper, Stepper
from bytelm.vocab import Vocab

S = TypeVar("S", bound=State)  # a model's decode state
Family = Literal["causal", "seq2seq", "encoder"]


STORED = {"stored": True}  # validation context of configs that no user writes: see `ArchConfig`


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A setting that has no effect beside the others of its config.

    setting  its name
    why      what it would need, as a clause: "no stage has Mamba-2 layers"
    entry    for a list: which entry has none; None = the whole setting
    unset    values of the entry that say nothing, the one to write first; of a whole setting it is
             its default
    """

    setting: str
    why: str
    entry: int | None = None
    unset: tuple[Any, ...] = ()


class ArchConfig(BaseModel):
    """Base of every architecture's config: frozen; an unknown key is an error, and so is a setting
    that has no effect (`idle`), unless its value is the default.

    What was stored with a model, or released by others, is validated with `context=STORED`: nobody
    wrote that down to have an effect, and it must load for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def idle(self) -> Iterator[Idle]:
        """The settings that change nothing beside the others, whatever their value: neither
        parameters, their initialisation and roles, nor outputs and losses. By default none."""
        return iter(())

    def trained_parts(self) -> Mapping[str, str]:
        """Keyword argument of the model -> run directory whose model it takes there, as a
        `TrainedPart`. By default none."""
        return {}

    @model_validator(mode="after")
    def _refuse_idle(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get("stored"):
            return self
        for idle in self.idle():
            value = getattr(self, idle.setting)
            default = type(self).model_fields[idle.setting].get_default()
            name, unset, advice = idle.setting, (default,), "Remove it"
            if idle.entry is not None:
                if idle.entry >= len(value):
                    continue
                name, unset, value = f"{name}[{idle.entry}]", idle.unset, value[idle.entry]
                advice = f"Write {unset[0]} there"
            if idle.setting in self.model_fields_set and value not in unset:
                raise ValueError(f"{name} = {value!r} has no effect: {idle.why}. {advice}")
        return self


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """What `forward` returns.

    logits  (B, L, V); of an encoder (B, classes), or (N, M, V) for the N masked words of the batch
            in reading order; float32 (or float64 for a float64 model)
    loss    () mean cross-entropy in nats over the positions with a target, or over the rows with a
            label; None where the batch has neither
    aux     extra loss terms by name, each () and already scaled: total = loss + sum(aux.values())
    stats   detached () tensors or floats to log
    """

    logits: Tensor
    loss: Tensor | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainedPart:
    """A trained model that becomes a part of another one, which stores its weights.

    arch           its name in the registry
    model          itself, for nobody else to use
    context_bytes  positions of the rows it was trained on
    """

    arch: str
    model: "ByteModel"
    context_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """All but its weights, as JSON values."""
        return {
            "arch": self.arch,
            "config": self.model.config.model_dump(mode="json"),
            "vocabulary": self.model.vocab.to_dict(),
            "context_bytes": self.context_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class ParameterRole:
    """How the optimizer treats one parameter.

    kind           matrix: hidden weight matrix (Muon's share; AdamW with decay otherwise)
                   embedding | head: input table, output projection (AdamW, no Muon)
                   other: everything else, e.g. ndim <= 1, convolutions, routers
    lr_multiplier  factor on the learning rate
    decay          whether weight decay applies; never for ndim <= 1
    """

    kind: Literal["matrix", "embedding", "head", "other"]
    lr_multiplier: float = 1.0
    decay: bool = True


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A sign in a model's statistics that training goes wrong.

    name     which part and what, e.g. "stage0/starved": the same trouble has the same name
    finding  what is wrong, with the figures: a clause that may be followed by "for 200 steps"
    advice   what it leads to and what to do: whole sentences
    """

    name: str
    finding: str
    advice: str


class ByteModel(nn.Module, ABC):
    """An architecture; a subclass of one of the three families below.

    `vocab` says how many ids there are and which begin and end a text. With a `TokenVocab` the ids
    are tokens, and "byte" below is to be read as "position".
    """

    Config: ClassVar[type[ArchConfig]]
    family: ClassVar[Family]
    added: ClassVar[tuple[str, ...]] = ()  # prefixes of tensors that `model.from` need not have

    def __init__(self, config: ArchConfig, vocab: Vocab):
        super().__init__()
        self.config = config
        self.vocab = vocab

    @abstractmethod
    def forward(self, batch: Batch) -> ModelOutput:
        """Logits of the batch, and the loss where it has targets or labels."""

    @abstractmethod
    def flops_per_byte(self, context_bytes: int) -> float:
        """Forward floating-point operations per input byte at that context length."""

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        """The optimizer role of the parameter called `name`; override for special ones."""
        if parameter.ndim == 2:
            return ParameterRole(kind="matrix")
        return ParameterRole(kind="other", decay=parameter.ndim > 1)

    def progress(self, fraction: float) -> None:
        """Told by the trainer before each step how much of training is done (0 to 1), for the few
        models that anneal something; the default does nothing."""

    def after_step(self, stats: Mapping[str, float]) -> None:
        """Told by the trainer after each optimizer step its statistics (`ModelOutput.stats` over
        all ranks and micro-batches), for the few models that steer something by them: what they
        change must be buffers, so that it is in checkpoints. The default does nothing."""

    @classmethod
    def release_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the configuration of a release says; `BytelmError` where there is none."""
        raise BytelmError(f"{cls.__name__} is read from run directories only: no release is known")

    def release_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of a release by our names; `BytelmError` where there is none."""
        raise BytelmError(
            f"{type(self).__name__} is read from run directories only: no release is known"
        )

    def symptoms(self, stats: Mapping[str, float]) -> list[Symptom]:
        """What in the statistics of one step (`ModelOutput.stats`) is a sign of trouble; by default
        nothing. Called after every logged step: whether it lasts is not the model's to judge."""
        return []

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Decoder(ByteModel, Generic[S]):
    """What the two generating families share: feeding bytes to an immutable decode state.

    The first 257 logits are the bytes and the end of the text; feeding must give what `forward`
    gives at the same positions.
    """

    @abstractmethod
    def prefill(self, ids: Tensor, lengths: Tensor, state: S) -> tuple[Tensor, S]:
        """Feed ids (B, L) of which row b has lengths[b] >= 1 valid; -> (logits (B, V) after each
        row's last valid id, new state). The state may be empty or hold earlier bytes."""

    @abstractmethod
    def step(self, ids: Tensor, state: S) -> tuple[Tensor, S]:
        """Feed one id per row, ids (B,); -> (logits (B, V), new state)."""

    def extend(self, ids: Tensor, lengths: Tensor, state: S) -> tuple[Tensor, S]:
        """As `prefill`, with the logits (B, L, V) after each id; those past a row's length are
        without meaning. By default the ids are fed one by one."""
        steps = []
        for i in range(ids.shape[1]):
            rows = (lengths > i).nonzero()[:, 0]
            logits, part = self.step(ids[rows, i], state.view(rows))
            state = state.scatter(rows, part)
            steps.append(logits.new_zeros(len(ids), logits.shape[1]).index_copy(0, rows, logits))
        return torch.stack(steps, dim=1), state

    @property
    def compiles(self) -> bool:
        """Whether `stepper` has a compiled form for this model as it is now."""
        return False

    def stepper(self, state: S, rows: int, *, compiled: bool = False) -> Stepper:
        """The `rows` rows of a state, to be fed one id at a time in place; the state stays valid.

        By default through `step`; faster where an architecture knows how. compiled: through
        kernels, for models that have them (`compiles`).
        """
        return StateStepper(self.step, state)


class CausalModel(Decoder[S]):
    """Predicts each byte from the bytes before it."""

    family = "causal"

    @abstractmethod
    def init_state(self, batch_size: int) -> S:
        """An empty decode state for `batch_size` rows."""


class Seq2SeqModel(Decoder[S]):
    """Predicts each byte from the bytes before it and from the whole of a source.

    `forward(batch)` reads `batch.source` (a `Batch` of its own, padded on the right) with the
    encoder, and `batch.ids`, which begin with BOS, with the decoder.
    """

    family = "seq2seq"

    @abstractmethod
    def encode(self, source: Batch) -> State:
        """The memory of the sources: a state whose rows can be selected and joined. `source.ids`
        (B, M) with `source.lengths`; rows of length 0 are sources without a byte."""

    @abstractmethod
    def init_state(self, memory: Any) -> S:
        """An empty decode state that reads `memory`, which is what `encode` gave: one row per row
        of it."""

    def source_of(self, batch: Batch) -> Batch:
        """`batch.source`; `BytelmError` if the batch has none."""
        if batch.source is None:
            raise BytelmError(
                f"{type(self).__name__} is a sequence-to-sequence model and this batch has no "
                "source: choose an objective that gives one"
            )
        return batch.source


class EncoderModel(ByteModel):
    """Reads rows in both directions; a vector per position, and logits per row over the classes.

    labels  names of the classes, in the order of the logits, none for a model that does not
            classify (`FillsWords`). They are stored with the model.
    """

    family = "encoder"

    def __init__(self, config: ArchConfig, vocab: Vocab, *, labels: Sequence[str] = ()):
        super().__init__(config, vocab)
        self.labels = tuple(labels)

    @abstractmethod
    def representations(self, batch: Batch) -> Tensor:
        """(B, L, D) vectors of the positions; those past a row's length are without meaning."""


def require_labels(labels: Sequence[str]) -> Sequence[str]:
    """The labels, if they tell classes apart; else `BytelmError`."""
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise BytelmError(
            f"a classifier needs at least two labels, each once, not {list(labels)}: "
            "train it with objective.kind=classification on data that has labels"
        )
    return labels


@runtime_checkable
class FillsWords(Protocol):
    """An encoder that predicts the pieces of masked words: its logits are (N, M, V).

    mask  the id that stands for a masked word; None if it was not trained to fill any
    stop  the piece that says that a word has no more
    """

    mask: int | None
    stop: int | None


@runtime_checkable
class Hierarchical(Protocol):
    """A model that cuts its input into chunks."""

    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L) per stage, outermost first: where chunks start."""
        ...


@runtime_checkable
class Deleting(Protocol):
    """A sequence-to-sequence model whose encoder leaves out bytes of the source."""

    def deleted(self, source: Batch) -> Tensor:
        """(B, M) bool: the bytes that no later layer and no decoder sees."""
        ...


def causal_loss(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    """Mean cross-entropy in nats of logits (B, L, V) against targets (B, L), ignoring -100.

    None without targets. A batch in which every target is ignored gives 0, not NaN.
    """
    if targets is None:
        return None
    total = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    return total / (targets != IGNORE).sum().clamp(min=1)


def label_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Mean cross-entropy in nats of logits (B, classes) against labels (B,), ignoring -100.

    None without labels. A batch in which no row has a label gives 0, not NaN.
    """
    if labels is None:
        return None
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)
