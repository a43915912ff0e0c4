"""The entropy rule: a patch ends where a small byte model cannot say what comes next (BLT).

H_t = the entropy in nats of the patcher's distribution of byte t + 1 given bytes 0..t (Pagnoni et
al. 2024, section 2.3). Under the global threshold a patch ends at t if H_t > threshold; under the
monotonic one if H_t - H_(t-1) > rise; "both" asks for both. So the rule knows at each byte whether
its patch ends there, which is when BLT must know it.

What a reader may question:

* The patcher is frozen, and its weights are buffers: they are stored and moved with the model, and
  no optimizer, gradient or count of parameters sees them.
* The patcher never sees further back than the texts it was trained on. Beyond those the entropy of
  a model with rotary positions rises and patches shrink to single bytes, so attention that would
  see everything gets a sliding window of the trained length (`narrowed`).
* It computes in the precision of its weights also under autocast: a threshold is a hard decision,
  and training must see the patches that decoding will see.
* Choosing the k highest entropies of a sequence needs the whole sequence: a causal model cannot.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bytelm.arch.base import CausalModel, TrainedPart
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.attention import SelfAttention
from bytelm.nn.boundary_rule import BoundaryRule, Cuts, RuleOptions, Stretch
from bytelm.nn.segments import last_valid
from bytelm.nn.state import State
from bytelm.vocab import ByteVocab

Kind = Literal["threshold", "monotonic", "both"]


@dataclass(frozen=True)
class EntropyState(State):
    """patcher: its decode state; entropy (B,): H at the position before the next; closed (B,) bool:
    whether the patch of that position ended there."""

    patcher: State
    entropy: Tensor
    closed: Tensor


class EntropyRule(BoundaryRule):
    """Chunks that end after a byte whose successor `patcher` finds hard to predict."""

    reads_bytes = True

    def __init__(
        self, options: RuleOptions, part: TrainedPart, *, kind: Kind, threshold: float, rise: float
    ):
        super().__init__(options)
        if not isinstance(part.model, CausalModel) or not isinstance(part.model.vocab, ByteVocab):
            raise BytelmError(
                f"the patcher is a {type(part.model).__name__} of the {part.model.family} family "
                f"over {type(part.model.vocab).__name__}: it must be a causal model over bytes"
            )
        self.patcher = frozen(narrowed(part.model, part.context_bytes))
        self.kind, self.threshold, self.rise = kind, threshold, rise

    def train(self, mode: bool = True) -> "EntropyRule":
        """The patcher is always in evaluation mode."""
        super().train(mode)
        self.patcher.eval()
        return self

    def init_state(self, batch_size: int, like: Tensor) -> EntropyState:
        exact = torch.promote_types(like.dtype, torch.float32)
        return EntropyState(
            self.patcher.init_state(batch_size),
            like.new_zeros(batch_size, dtype=exact),
            torch.zeros(batch_size, dtype=torch.bool, device=like.device),
        )

    def decide(self, stretch: Stretch, state: EntropyState) -> tuple[Cuts, EntropyState]:
        assert stretch.ids is not None, "entropy is a matter of bytes"
        with torch.no_grad(), torch.autocast(stretch.ids.device.type, enabled=False):
            H_BL, patcher = self._entropies(stretch, stretch.ids, state)
        before_BL = torch.cat((state.entropy[:, None].to(H_BL.dtype), H_BL[:, :-1]), dim=1)
        ends_BL = self.ends(H_BL, before_BL) | (stretch.positions == 0)
        starts_BL = torch.cat((state.closed[:, None], ends_BL[:, :-1]), dim=1)
        if stretch.whole:
            return Cuts(starts_BL, ends=ends_BL), state
        entropy, closed = (last_valid(t, stretch.counts) for t in (H_BL, ends_BL))
        after = EntropyState(patcher, entropy.to(state.entropy.dtype), closed)
        return Cuts(starts_BL, ends=ends_BL), after

    def ends(self, entropy: Tensor, before: Tensor) -> Tensor:
        """Whether a patch ends where the entropy is that, and was `before` one byte earlier."""
        if self.kind == "threshold":
            return entropy > self.threshold
        risen = entropy - before > self.rise
        return risen if self.kind == "monotonic" else risen & (entropy > self.threshold)

    def _entropies(
        self, stretch: Stretch, ids_BL: Tensor, state: EntropyState
    ) -> tuple[Tensor, State]:
        counts = stretch.counts
        if stretch.whole:
            batch = Batch(ids=ids_BL, lengths=counts, document_ids=stretch.document_ids)
            return entropies(self.patcher(batch).logits), state.patcher
        if counts is None:
            counts = torch.full_like(ids_BL[:, 0], ids_BL.shape[1])
        logits, after = self.patcher.extend(ids_BL, counts, state.patcher)
        return entropies(logits), after


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats of logits (..., V), of which some may be -inf: (...)."""
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def narrowed(model: CausalModel, positions: int) -> CausalModel:
    """The model with a window on every attention that sees further back than it did in rows of
    `positions` ids."""
    for part in model.modules():
        if isinstance(part, SelfAttention):
            window = part.options.window
            if window < 0 or window >= positions:
                part.options = replace(part.options, window=positions - 1)
    return model


def frozen(model: CausalModel) -> CausalModel:
    """The model in evaluation mode with buffers instead of parameters."""
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            del part._parameters[name]
            part.register_buffer(name, parameter.detach())
    return model.eval()


def threshold_for(patcher: Any, ids_BL: Tensor, bytes_per_patch: float) -> float:
    """The threshold under which patches of these rows have that length on average: the entropy
    that a share of 1 / bytes_per_patch of all positions exceed."""
    with torch.no_grad():
        H = entropies(patcher(Batch(ids=ids_BL)).logits)[:, 1:]
    return float(H.flatten().quantile(1 - 1 / bytes_per_patch))
