"""The boundary rules: learned, fixed, space-like bytes, words, given from outside.

What a rule is stands in `boundary_rule.py`. What a reader may question: `LearnedRule` is the router
itself, because that is where the released H-Nets keep its weights. A new rule is one class and its
name in `RULES`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.errors import BytelmError
from bytelm.nn.boundary_rule import BoundaryRule, Cuts, NoState, RuleOptions, Stretch
from bytelm.nn.segments import last_valid
from bytelm.nn.state import State
from bytelm.nn.words import WordsRule
from bytelm.vocab import BYTES

RuleName = Literal["learned", "fixed", "space", "words", "given"]


@dataclass(frozen=True)
class PreviousVector(State):
    """x (B, D): the encoder output before the next position."""

    x: Tensor


@dataclass(frozen=True)
class PreviousId(State):
    """id (B,): the symbol before the next position."""

    id: Tensor


class LearnedRule(BoundaryRule):
    """H-Net's router: a chunk starts where neighbouring positions differ (eq. 4), p > 1/2.

    The released code projects the *previous* position with `q_proj_layer` and the current one with
    `k_proj_layer` (the paper names them the other way round). Both start as the identity. The
    probabilities are float32 or better: in bfloat16 a few percent of the decisions near 1/2
    would change.
    """

    def __init__(self, options: RuleOptions):
        super().__init__(options)
        self.q_proj_layer = nn.Linear(options.dim, options.dim, bias=False)
        self.k_proj_layer = nn.Linear(options.dim, options.dim, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Identity projections; later initialisations of the model leave them alone."""
        for layer in (self.q_proj_layer, self.k_proj_layer):
            if not layer.weight.is_meta:
                nn.init.eye_(layer.weight)

    def forward(self, x_BLD: Tensor, previous_BD: Tensor) -> Tensor:
        """p (B, L) in [0, 1]; `previous` stands before the first position."""
        with torch.autocast(x_BLD.device.type, enabled=False):
            wq, wk = self.q_proj_layer.weight, self.k_proj_layer.weight
            x = x_BLD.to(torch.promote_types(wq.dtype, torch.float32))
            before = torch.cat((previous_BD[:, None].to(x.dtype), x[:, :-1]), dim=1)
            q = F.normalize(F.linear(before, wq.to(x.dtype)), dim=-1)
            k = F.normalize(F.linear(x, wk.to(x.dtype)), dim=-1)
            return ((1 - (q * k).sum(-1)) / 2).clamp(0, 1)

    def init_state(self, batch_size: int, like: Tensor) -> PreviousVector:
        # any vector but 0, whose direction has no derivative: position 0 starts a chunk anyway
        exact = torch.promote_types(like.dtype, torch.float32)
        return PreviousVector(like.new_ones(batch_size, self.options.dim, dtype=exact))

    def decide(self, stretch: Stretch, state: PreviousVector) -> tuple[Cuts, PreviousVector]:
        p = self(stretch.x, state.x)
        last = last_valid(stretch.x, stretch.counts).to(state.x.dtype)
        return Cuts(p > 0.5, p), PreviousVector(last)


class FixedRule(BoundaryRule):
    """A chunk every `stride` positions. Position 0 is BOS, so byte 0 of the data is position 1."""

    def init_state(self, batch_size: int, like: Tensor) -> NoState:
        return NoState()

    def decide(self, stretch: Stretch, state: NoState) -> tuple[Cuts, NoState]:
        stride = self.options.stride
        ends = stretch.positions % stride == 0
        return Cuts((stretch.positions - 1) % stride == 0, ends=ends), state


class PreviousIdRule(BoundaryRule):
    """A rule about each byte and the one before it."""

    reads_bytes = True

    def init_state(self, batch_size: int, like: Tensor) -> PreviousId:
        return PreviousId(torch.zeros(batch_size, dtype=torch.long, device=like.device))

    def decide(self, stretch: Stretch, state: PreviousId) -> tuple[Cuts, PreviousId]:
        ids = stretch.ids
        assert ids is not None, f"{type(self).__name__} exists at the outermost level only"
        before = torch.cat((state.id[:, None], ids[:, :-1]), dim=1)
        last = last_valid(ids, stretch.counts)
        starts = self.starts(ids, before, stretch.boundaries)
        return Cuts(starts, ends=self.ends(ids, stretch.boundaries)), PreviousId(last)

    @abstractmethod
    def starts(self, ids_BL: Tensor, before_BL: Tensor, given_BL: Tensor | None) -> Tensor:
        """(B, L) bool from each id, the one before it, and those given from outside."""

    def ends(self, ids_BL: Tensor, given: Tensor | None) -> Tensor | None:
        """(B, L) bool as in `Cuts`; None for rules that need the next id to say so."""
        return None


class SpaceRule(PreviousIdRule):
    """SpaceByte's rule (Slagle 2024): a chunk starts at a space-like byte after another kind.

    Space-like: neither ASCII letter or digit nor a UTF-8 continuation byte (specials count as
    space-like).
    """

    def starts(self, ids_BL: Tensor, before_BL: Tensor, given_BL: Tensor | None) -> Tensor:
        return space_like(ids_BL) & ~space_like(before_BL)


class GivenRule(PreviousIdRule):
    """Chunk starts given from outside (`Batch.boundaries`, `prefill` and `step`), else after each
    byte in `options.after`: a record separator, a newline. Without either, an error says so."""

    def starts(self, ids_BL: Tensor, before_BL: Tensor, given_BL: Tensor | None) -> Tensor:
        if given_BL is not None:
            return given_BL[:, : ids_BL.shape[1]]
        return torch.isin(before_BL, torch.tensor(self.after, device=before_BL.device))

    def ends(self, ids_BL: Tensor, given: Tensor | None) -> Tensor | None:
        if given is None:
            return torch.isin(ids_BL, torch.tensor(self.after, device=ids_BL.device))
        return given[:, 1:] if given.shape[1] > ids_BL.shape[1] else None

    @property
    def after(self) -> tuple[int, ...]:
        """`options.after`; `BytelmError` if it is empty."""
        if not self.options.after:
            raise BytelmError(
                'the model has boundaries = "given", but the batch carries none and '
                "given_after is empty: set it to the byte values after which a chunk starts (such "
                "as [10] for lines), or use boundaries = 'fixed' with the record size as target"
            )
        return self.options.after


RULES: dict[RuleName, type[BoundaryRule]] = {
    "learned": LearnedRule,
    "fixed": FixedRule,
    "space": SpaceRule,
    "words": WordsRule,
    "given": GivenRule,
}


def space_like(ids: Tensor) -> Tensor:
    """Whether each id is space-like (see `SpaceRule`); same shape, bool."""
    lower = ids | 0x20
    letter = (lower >= 0x61) & (lower <= 0x7A) & (ids < BYTES)
    digit = (ids >= 0x30) & (ids <= 0x39)
    continuation = (ids >= 0x80) & (ids <= 0xBF)
    return ~(letter | digit | continuation)
