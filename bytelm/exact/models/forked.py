"""`ForkedLM`: a token LM whose memory is a state that can be copied row by row (recurrent models).

A tree of keys and values shares what token prefixes have in common; a recurrent state cannot, so
here a node is a copy of its parent's state. States are batches and a node is one row of one: a call
that extends nodes of one earlier call selects their rows and takes a single step. Known texts are
read a level at a time, at the speed of ordinary decoding. Memory is states of live nodes, not text
length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bytelm.exact.token_lm import Node


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    """A node: row `row` of a state of several."""

    state: Any
    row: int


class ForkedLM(ABC):
    """A `TokenLM` over states that can be copied. A subclass supplies `first` and `step`.

    `rows_evaluated` counts token rows through the model.
    """

    def __init__(
        self, vocab_bytes: Sequence[bytes | None], *, eos_ids: set[int], start_ids: Sequence[int]
    ):
        self.vocab_bytes = list(vocab_bytes)
        self.eos_ids = eos_ids
        self.start_ids = list(start_ids)
        self.rows_evaluated = 0

    @abstractmethod
    def first(self, ids: list[int]) -> tuple[Any, Tensor]:
        """A state of one row that has read `ids`, and (V,) log-probabilities of what follows."""

    @abstractmethod
    def step(self, state: Any, rows: Tensor, ids: Tensor) -> tuple[Any, Tensor]:
        """A new state: the given rows (R,) of `state` (repeats allowed), which stays as it is, each
        after one more token of ids (R,); and (R, V) log-probabilities."""

    def open(self) -> None:
        return None

    @torch.inference_mode()
    def root(self, cache: None) -> tuple[Fork, Tensor]:
        state, logprobs = self.first(self.start_ids)
        self.rows_evaluated += len(self.start_ids)
        return Fork(state, 0), logprobs

    @torch.inference_mode()
    def extend(self, cache: None, rows: list[tuple[Fork, int]]) -> tuple[list[Fork], Tensor]:
        together: dict[int, list[int]] = {}  # rows whose parents lie in the same state
        for i, (parent, _) in enumerate(rows):
            together.setdefault(id(parent.state), []).append(i)
        nodes: list[Node] = [None] * len(rows)
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for members in together.values():
            state = rows[members[0]][0].state
            parents = torch.tensor([rows[i][0].row for i in members])
            state, logprobs = self.step(state, parents, torch.tensor([rows[i][1] for i in members]))
            for place, i in enumerate(members):
                nodes[i], found[i] = Fork(state, place), logprobs[place]
        self.rows_evaluated += len(rows)
        return nodes, torch.stack(found)

    def release(self, cache: None, nodes: list[Fork]) -> None:
        return None  # a state goes with its last node
