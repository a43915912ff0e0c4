"""Recurrent Hugging Face models (Mamba, RWKV and hybrids) as `TokenLM`s, by copies of their state.

What a model calls its state differs (`cache_params`, `past_key_values`, RWKV's `state`); what can
be done to it is the same: select rows. Caches with any layer that is not plain attention are read
here, because tree attention cannot give such a layer the ancestors of a row instead of the row
before. Models that keep their state to themselves (RecurrentGemma) cannot be read, and say so.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.models.attention_check import check, name_of
from bytelm.exact.models.forked import ForkedLM

_NAMES = ("cache_params", "past_key_values", "state")


def recurrent_state(model: Any) -> str | None:
    """Under which name the model keeps a recurrent state; None for attention alone."""
    from transformers.cache_utils import Cache, LinearAttentionCacheLayerMixin

    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        output = model(input_ids=ids, use_cache=True)
    for name in _NAMES:
        state = output.get(name)
        if isinstance(state, Cache):
            kinds = [isinstance(layer, LinearAttentionCacheLayerMixin) for layer in state.layers]
            return name if any(kinds) else None
        if state is not None:
            return name
    return None


class RecurrentLM(ForkedLM):
    """A transformers causal LM with a recurrent state, kept by the model under `name`.

    `BytelmError` if it does not continue from that state as it reads a whole text.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: set[int],
        start_ids: Sequence[int],
    ):
        super().__init__(vocab_bytes, eos_ids=eos_ids, start_ids=start_ids)
        self.model, self.name = model.eval(), name
        limit = check(model, self)
        if limit is not None and limit.reason.startswith("positions"):
            raise BytelmError(f"{name_of(model)} has {limit.reason}: texts would depend on mates")
        self.rows_evaluated = 0

    def first(self, ids: list[int]) -> tuple[Any, Tensor]:
        state, logprobs = self._call(torch.tensor([ids]), None)
        return state, logprobs[0]

    def step(self, state: Any, rows: Tensor, ids: Tensor) -> tuple[Any, Tensor]:
        chosen = select_rows(state, rows.to(self.model.device))
        if self.name != "state":
            return self._call(ids[:, None], chosen)
        # RWKV's single step in transformers mixes the rows of a batch: one row at a time
        each = [torch.tensor([row]) for row in range(len(ids))]
        states, logprobs = zip(
            *(self._call(ids[row, None], select_rows(chosen, row)) for row in each), strict=True
        )
        return [torch.cat(parts) for parts in zip(*states, strict=True)], torch.cat(logprobs)

    def _call(self, ids_BL: Tensor, state: Any) -> tuple[Any, Tensor]:
        """(state, (B, V) log-probabilities after each row)."""
        given = {} if state is None else {self.name: state}
        output = self.model(input_ids=ids_BL.to(self.model.device), use_cache=True, **given)
        logits = output.logits[:, -1]
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return output[self.name], exact.log_softmax(-1)


def select_rows(state: Any, rows: Tensor) -> Any:
    """A copy of the given rows (R,) (repeats allowed) that shares nothing a model writes to.

    `BytelmError` for a kind of state that cannot be copied row by row.
    """
    from transformers.cache_utils import Cache

    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, (list, tuple)):
        return type(state)(select_rows(part, rows) for part in state)
    if isinstance(state, Cache):
        chosen = copy.copy(state)
        chosen.layers = [_select_layer(layer, rows) for layer in state.layers]
        return chosen
    raise BytelmError(
        f"a recurrent state of type {type(state).__name__} cannot be copied row by row here: wrap "
        "the model in your own TokenLM"
    )


def _select_layer(layer: Any, rows: Tensor) -> Any:
    chosen = copy.copy(layer)
    for name, value in vars(layer).items():  # dicts of states are written to in place
        if isinstance(value, dict):
            setattr(chosen, name, dict(value))
    chosen.reorder_cache(rows)
    return chosen
