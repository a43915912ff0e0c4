"""Byte table, body, untied head: what every causal architecture has around its own idea.

A `BackboneModel` embeds ids, hands the vectors (B, L, D) to a body that returns vectors of the same
shape, and reads logits from them; so an architecture's own file holds its body and nothing else.
Written once here: the map from ids to table rows (`nn.tables`), initialisation of table and head,
their optimizer roles, logits in float32 or better, the loss, and which position of a prefill is
read.

Any of them can have tables of n-grams (`nn.ngrams`) beside the byte table, whose vectors are added
to what the body gets; a body never knows.

The body is given as a function because it is made between table and head: in that order a seed
draws the weights it always drew. Its parameters are named `backbone.*`, as in the released H-Nets.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.arch.base import (
    ArchConfig,
    CausalModel,
    Idle,
    ModelOutput,
    ParameterRole,
    S,
    causal_loss,
)
from bytelm.data.batch import Batch
from bytelm.nn.linear import Linear
from bytelm.nn.ngrams import NGramState, NGramTables
from bytelm.nn.segments import Segments, last_valid
from bytelm.nn.stack import Stack
from bytelm.nn.state import State
from bytelm.nn.stepping.ops import linear
from bytelm.nn.stepping.stack import compiles
from bytelm.nn.stepping.stepper import Stepper
from bytelm.nn.tables import NONE, IdMap, id_map
from bytelm.vocab import Vocab


class NGramConfig(ArchConfig):
    """The settings of models that can have n-gram tables."""

    ngrams: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="sizes n of the n-grams whose hashed vectors are added to the byte table's"
    )
    ngram_rows: int = Field(8192, ge=1, description="rows of the table of each n-gram size")
    ngram_lr: float = Field(4.0, gt=0, description="learning-rate factor of these tables")

    @model_validator(mode="after")
    def _ascending(self) -> "NGramConfig":
        if list(self.ngrams) != sorted(set(self.ngrams)):
            raise ValueError(f"ngrams {self.ngrams} must ascend")
        return self

    def idle(self) -> Iterator[Idle]:
        if not self.ngrams:
            for name in ("ngram_rows", "ngram_lr"):
                yield Idle(setting=name, why="there are no ngrams")


@dataclass(frozen=True, kw_only=True)
class BodyOutput:
    """x (B, L, D) at every position, and what the body adds to `ModelOutput.aux` and `stats`."""

    x: Tensor
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)


class BodySteps(Protocol):
    """A body that decodes in place."""

    @property
    def chunks(self) -> int:
        """Chunks begun so far in all rows; 0 where nothing is cut."""

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """Feed one position to the rows with these numbers, None = all; -> outputs (n, D)."""

    def state(self) -> State:
        """The immutable state of all rows."""


class BackboneModel(CausalModel[S]):
    """A causal model made of a byte table, a body and a head.

    dim        width D of the table and of what the body maps
    make_body  makes the module `backbone`
    ids        which table row each id is; default: row i is id i
    """

    def __init__(
        self,
        config: ArchConfig,
        vocab: Vocab,
        *,
        dim: int,
        make_body: Callable[[], nn.Module],
        ids: IdMap | None = None,
    ):
        super().__init__(config, vocab)
        self.ids = ids or id_map("own", vocab)
        self.embeddings = nn.Embedding(self.ids.rows, dim)
        self.backbone = make_body()
        self.lm_head = Linear(dim, self.ids.rows, bias=False)
        self.reset_parameters()
        self.ngrams: NGramTables | None = None
        if isinstance(config, NGramConfig) and config.ngrams:
            self.ngrams = self.make_ngrams(config, dim)

    # -- what an architecture writes ---------------------------------------------------------------

    @abstractmethod
    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        """The body over whole rows; `batch` is where x comes from."""

    @abstractmethod
    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: S, batch: Batch
    ) -> tuple[Tensor, S]:
        """Feed counts[b] >= 1 (None = L) more positions of each row to a state that is not written
        to; -> (outputs (B, L, D), new state). `batch` holds the same positions' ids, and their
        boundaries where the caller gives them."""

    @abstractmethod
    def init_body(self, batch_size: int) -> Any:
        """The body's empty decode state for `batch_size` rows."""

    def body_steps(self, state: S, rows: int, *, compiled: bool) -> BodySteps | None:
        """The body in place, from a state of `rows` rows; None = only `extend_body` decodes.
        compiled: through kernels, where all its stacks have them."""
        return None

    def make_ngrams(self, config: NGramConfig, dim: int) -> NGramTables:
        """The tables of n-grams, for vectors of width D."""
        return NGramTables(config.ngrams, config.ngram_rows, dim)

    @abstractmethod
    def reset_body(self) -> None:
        """The initialisation of the body, after that of table and head."""

    @abstractmethod
    def body_flops(self, context_bytes: int) -> float:
        """Forward operations of the body per byte at that context length."""

    # -- what is the same for all ------------------------------------------------------------------

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Table N(0, 1), head N(0, 0.02), then the body; nothing on the meta device. Tables of
        n-grams start at 0."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.reset_body()

    def forward(self, batch: Batch) -> ModelOutput:
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        x = self._embed(batch.ids, document_ids=batch.document_ids)
        out = self.forward_body(x, segments, batch)
        logits = self._head(out.x)
        loss = causal_loss(logits, batch.targets)
        return ModelOutput(logits=logits, loss=loss, aux=out.aux, stats=out.stats)

    def prefill(
        self, ids: Tensor, lengths: Tensor, state: S, *, boundaries: Tensor | None = None
    ) -> tuple[Tensor, S]:
        """As `CausalModel.prefill`; boundaries (B, L) bool are the chunk starts of these positions
        for models whose boundaries are "given" (others do not look at them)."""
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(Batch(ids=ids, boundaries=boundaries), counts, state)
        return self._head(last_valid(x, counts)), state

    def extend(self, ids: Tensor, lengths: Tensor, state: S) -> tuple[Tensor, S]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self._extend(Batch(ids=ids), counts, state)
        return self._head(x), state

    def step(self, ids: Tensor, state: S, *, boundaries: Tensor | None = None) -> tuple[Tensor, S]:
        """As `CausalModel.step`; boundaries (B,) bool as in `prefill`."""
        batch = Batch(
            ids=ids[:, None], boundaries=None if boundaries is None else boundaries[:, None]
        )
        x, state = self._extend(batch, None, state)
        return self._head(x[:, 0]), state

    def init_state(self, batch_size: int) -> Any:
        body = self.init_body(batch_size)
        return body if self.ngrams is None else NGramState(self.ngrams.empty_tail(batch_size), body)

    def _extend(self, batch: Batch, counts: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """`extend_body` behind the tables."""
        if self.ngrams is None:
            return self.extend_body(self._embed(batch.ids), counts, state, batch)
        x = self._embed(batch.ids, tail=state.tail)
        tail = self.ngrams.new_tail(state.tail, batch.ids, counts)
        y, body = self.extend_body(x, counts, state.body, batch)
        return y, NGramState(tail, body)

    @property
    def compiles(self) -> bool:
        found = [compiles(part) for part in self.backbone.modules() if isinstance(part, Stack)]
        return bool(found) and all(found)

    def stepper(self, state: Any, rows: int, *, compiled: bool = False) -> Stepper:
        inside = state if self.ngrams is None else state.body
        body = self.body_steps(inside, rows, compiled=compiled)
        if body is None:
            return super().stepper(state, rows)
        if self.ngrams is not None:
            body = NGramSteps(self.ngrams, state.tail, body)
        return BackboneStepper(self, body)

    def flops_per_byte(self, context_bytes: int) -> float:
        head = 2.0 * self.lm_head.in_features * self.lm_head.out_features
        return head + self.body_flops(context_bytes)

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head")
        if name.startswith("ngrams."):
            assert isinstance(self.config, NGramConfig)
            factor = self.config.ngram_lr
            return ParameterRole(kind="embedding", decay=False, lr_multiplier=factor)
        return super().parameter_role(name, parameter)

    def _embed(
        self, ids: Tensor, *, tail: Tensor | None = None, document_ids: Tensor | None = None
    ) -> Tensor:
        """What the body gets; tail: the ids before these, None = they begin a text."""
        x = self.embeddings(self.ids.rows_of(ids))
        if self.ngrams is None:
            return x
        if tail is None:
            tail = self.ngrams.empty_tail(len(ids))
        return x + self.ngrams(ids, tail, document_ids)

    def _head(self, x: Tensor) -> Tensor:
        logits = self.lm_head(x)
        return self.ids.logits_of(logits.to(torch.promote_types(logits.dtype, torch.float32)))


class NGramSteps:
    """A body behind the n-gram tables; tail (B, K) as in `NGramTables`."""

    def __init__(self, tables: NGramTables, tail: Tensor, body: BodySteps):
        self._tables, self._body = tables, body
        self._table = tables.table.weight.detach()
        self._latest: list[list[int]] = [row[::-1] for row in tail.tolist()]  # newest first

    @property
    def chunks(self) -> int:
        """As the body's own."""
        return self._body.chunks

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """As `BodySteps.step`."""
        found = []
        for b, symbol in zip(range(len(ids)) if rows is None else rows, ids, strict=True):
            latest = [symbol, *self._latest[b]]
            found.append(self._tables.rows_after(latest))
            self._latest[b] = latest[:-1]
        index = torch.tensor(found, device=x_nD.device)
        x = x_nD + F.embedding_bag(index, self._table, mode="sum")
        return self._body.step(x, rows, ids)

    def state(self) -> NGramState:
        """The immutable state of all rows."""
        tail = torch.tensor([row[::-1] for row in self._latest], device=self._table.device)
        return NGramState(tail, self._body.state())


class BackboneStepper(Stepper):
    """Table, body in place, head."""

    def __init__(self, model: BackboneModel, body: BodySteps):
        self._ids, self._body = model.ids, body
        self._table = model.embeddings.weight.detach()
        self._head = linear(model.lm_head)

    def step(self, ids: Sequence[int]) -> Tensor:
        row = self._ids.row
        found = ids if row is None else [row[i] for i in ids]
        if NONE in found:
            self._ids.rows_of(torch.tensor(ids))  # which says what is wrong
        index = torch.tensor(found, device=self._table.device)
        with torch.inference_mode():
            x = self._body.step(self._table.index_select(0, index), None, ids)
            logits = self._head(x)
            return self._ids.logits_of(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def state(self) -> State:
        return self._body.state()

    @property
    def chunks(self) -> int:
        return self._body.chunks
