"""What every architecture is: a config, a forward over a `Batch`, and (if causal) a decode state.

The trainer, the optimizer groups and the native `ByteLM` adapter know this file and no
architecture. Two conventions a reader may question: models return extra loss terms already scaled
in `aux` (so the trainer only adds), and states are explicit values which `step` never writes to, so
that an older state stays valid and a beam can fork one for free.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bytelm.data.batch import IGNORE, Batch
from bytelm.vocab import Vocab

Family = Literal["causal", "seq2seq", "encoder"]


class ArchConfig(BaseModel):
    """Base of every architecture's config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """What `forward` returns.

    logits  (B, L, V) float32 (or float64 for a float64 model)
    loss    () mean cross-entropy in nats over the positions with a target; None without targets
    aux     extra loss terms by name, each () and already scaled: total = loss + sum(aux.values())
    stats   detached () tensors or floats to log
    """

    logits: Tensor
    loss: Tensor | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)


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


class DecodeState(Protocol):
    """A value: `step` returns a new one and leaves the old one valid."""

    def select(self, rows: Tensor) -> Self:
        """The state of rows `rows` (int64 indices, repeats allowed), in that order."""
        ...

    def view(self, rows: Tensor) -> Self:
        """Like `select` without repeats; may share storage, so feed it only to `scatter` it."""
        ...

    def scatter(self, rows: Tensor, part: Self) -> Self:
        """This state with `rows` replaced by those of `part`: a descendant of `view(rows)`, or any
        state of the same model with that many rows."""
        ...


class ByteModel(nn.Module, ABC):
    """An architecture. Causal ones also implement `init_state`, `prefill` and `step`.

    `vocab` says how many ids there are and which begin and end a text. With a `TokenVocab` the ids
    are tokens, and "byte" below is to be read as "position".
    """

    Config: ClassVar[type[ArchConfig]]
    family: ClassVar[Family] = "causal"

    def __init__(self, config: ArchConfig, vocab: Vocab):
        super().__init__()
        self.config = config
        self.vocab = vocab

    @abstractmethod
    def forward(self, batch: Batch) -> ModelOutput:
        """Logits for every position of the batch, and the loss when it has targets."""

    def init_state(self, batch_size: int) -> Any:
        """An empty decode state for `batch_size` rows (causal models)."""
        raise TypeError(f"{type(self).__name__} is not a causal model: it has no decode state")

    def prefill(self, ids: Tensor, lengths: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Feed ids (B, L) of which row b has lengths[b] >= 1 valid; -> (logits (B, V) after each
        row's last valid id, new state). The state may be empty or hold earlier bytes."""
        raise TypeError(f"{type(self).__name__} is not a causal model: it has no decode state")

    def step(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Feed one id a row, ids (B,); -> (logits (B, V), new state)."""
        raise TypeError(f"{type(self).__name__} is not a causal model: it has no decode state")

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

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


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
