"""Byte table, body, untied head: what every causal architecture has around its own idea.

A `BackboneModel` embeds ids, hands the vectors (B, L, D) to a body that returns vectors of the same
shape, and reads logits from them; so an architecture's own file holds its body and nothing else.
Written once here: the map from ids to table rows (`nn.tables`), initialisation of table and head,
their optimizer roles, logits in float32 or better, the loss, and which position of a prefill is
read.

The body is given as a function because it is made between table and head: in that order a seed
draws the weights it always drew. Its parameters are named `backbone.*`, as in the released H-Nets.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from bytelm.arch.base import ArchConfig, CausalModel, ModelOutput, ParameterRole, S, causal_loss
from bytelm.data.batch import Batch
from bytelm.nn.linear import Linear
from bytelm.nn.segments import Segments, last_valid
from bytelm.nn.stack import Stack
from bytelm.nn.state import State
from bytelm.nn.stepping.ops import linear
from bytelm.nn.stepping.stack import compiles
from bytelm.nn.stepping.stepper import Stepper
from bytelm.nn.tables import NONE, IdMap, id_map
from bytelm.vocab import Vocab


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

    def body_steps(self, state: S, rows: int, *, compiled: bool) -> BodySteps | None:
        """The body in place, from a state of `rows` rows; None = only `extend_body` decodes.
        compiled: through kernels, where all its stacks have them."""
        return None

    @abstractmethod
    def reset_body(self) -> None:
        """The initialisation of the body, after that of table and head."""

    @abstractmethod
    def body_flops(self, context_bytes: int) -> float:
        """Forward operations of the body per byte at that context length."""

    # -- what is the same for all ------------------------------------------------------------------

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Table N(0, 1), head N(0, 0.02), then the body; nothing on the meta device."""
        if self.lm_head.weight.is_meta:
            return
        nn.init.normal_(self.embeddings.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.reset_body()

    def forward(self, batch: Batch) -> ModelOutput:
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        out = self.forward_body(self._embed(batch.ids), segments, batch)
        logits = self._head(out.x)
        loss = causal_loss(logits, batch.targets)
        return ModelOutput(logits=logits, loss=loss, aux=out.aux, stats=out.stats)

    def prefill(
        self, ids: Tensor, lengths: Tensor, state: S, *, boundaries: Tensor | None = None
    ) -> tuple[Tensor, S]:
        """As `CausalModel.prefill`; boundaries (B, L) bool are the chunk starts of these positions
        for models whose boundaries are "given" (others do not look at them)."""
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        batch = Batch(ids=ids, boundaries=boundaries)
        x, state = self.extend_body(self._embed(ids), counts, state, batch)
        return self._head(last_valid(x, counts)), state

    def extend(self, ids: Tensor, lengths: Tensor, state: S) -> tuple[Tensor, S]:
        counts = None if bool((lengths == ids.shape[1]).all()) else lengths
        x, state = self.extend_body(self._embed(ids), counts, state, Batch(ids=ids))
        return self._head(x), state

    def step(self, ids: Tensor, state: S, *, boundaries: Tensor | None = None) -> tuple[Tensor, S]:
        """As `CausalModel.step`; boundaries (B,) bool as in `prefill`."""
        batch = Batch(
            ids=ids[:, None], boundaries=None if boundaries is None else boundaries[:, None]
        )
        x, state = self.extend_body(self._embed(batch.ids), None, state, batch)
        return self._head(x[:, 0]), state

    @property
    def compiles(self) -> bool:
        found = [compiles(part) for part in self.backbone.modules() if isinstance(part, Stack)]
        return bool(found) and all(found)

    def stepper(self, state: S, rows: int, *, compiled: bool = False) -> Stepper:
        body = self.body_steps(state, rows, compiled=compiled)
        return super().stepper(state, rows) if body is None else BackboneStepper(self, body)

    def flops_per_byte(self, context_bytes: int) -> float:
        head = 2.0 * self.lm_head.in_features * self.lm_head.out_features
        return head + self.body_flops(context_bytes)

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name == "lm_head.weight":
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)

    def _embed(self, ids: Tensor) -> Tensor:
        return self.embeddings(self.ids.rows_of(ids))

    def _head(self, x: Tensor) -> Tensor:
        logits = self.lm_head(x)
        return self.ids.logits_of(logits.to(torch.promote_types(logits.dtype, torch.float32)))


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
