"""`TokenLM`: all that the converter asks of a token language model, and three small ones.

The model is a tree of token strings. `open` makes a cache that holds the root (the model's start
tokens); `extend` appends one token to each of several nodes and returns the new nodes with the
distributions that follow them; `release` says which nodes will not be asked for again. Nodes are
whatever the model likes. That is enough for n-gram tables, a remote server or a transformer.

A model that can do better than one row at a time implements `TreeTokenLM` as well: a whole tree of
rows, for several caches, in one call. `extend_trees` below is the one door that the converter uses,
and breaks such a request into levels for the plain models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError

Node = Any
Cache = Any
History = tuple[int, ...]  # a node of `TabularLM`: the tokens so far


@dataclass(frozen=True, slots=True)
class Earlier:
    """A parent that is row number `row` of the same request (nodes themselves may be integers)."""

    row: int


Row = tuple["Node | Earlier", int]  # parent and token


class TokenLM(Protocol):
    """A distribution over token strings, as a tree of nodes.

    vocab_bytes  the bytes of each id; None = special token, which is never bytes
    eos_ids      specials that end a text
    start_ids    what stands before every text (BOS, or a document separator)
    """

    vocab_bytes: list[bytes | None]
    eos_ids: set[int]
    start_ids: list[int]

    def open(self) -> Cache:
        """A new cache, holding the root node."""

    def root(self, cache: Cache) -> tuple[Node, Tensor]:
        """The root and (V,) log-probabilities of the first token of a text."""

    def extend(self, cache: Cache, rows: list[tuple[Node, int]]) -> tuple[list[Node], Tensor]:
        """Append a token to each parent: new nodes, (len(rows), V) natural-log probabilities."""

    def release(self, cache: Cache, nodes: list[Node]) -> None:
        """These nodes will not be parents any more, nor will their descendants be used."""


@runtime_checkable
class TreeTokenLM(TokenLM, Protocol):
    """A `TokenLM` that evaluates trees of new rows, for several caches, in one forward pass."""

    @abstractmethod
    def extend_trees(
        self, requests: list[tuple[Cache, list[Row]]]
    ) -> list[tuple[list[Node], Tensor]]:
        """As `extend` for each (cache, rows); a parent may be an `Earlier` row of its request."""


def extend_trees(
    lm: TokenLM, requests: list[tuple[Cache, list[Row]]]
) -> list[tuple[list[Node], Tensor]]:
    """One answer a request: in one pass if the model can, else level by level."""
    if isinstance(lm, TreeTokenLM):
        return lm.extend_trees(requests)
    return [_by_levels(lm, cache, rows) for cache, rows in requests]


def _by_levels(lm: TokenLM, cache: Cache, rows: list[Row]) -> tuple[list[Node], Tensor]:
    level = [0] * len(rows)
    levels = defaultdict(list)
    for i, (parent, _) in enumerate(rows):
        level[i] = level[parent.row] + 1 if isinstance(parent, Earlier) else 0
        levels[level[i]].append(i)
    nodes: list[Node] = [None] * len(rows)
    logprobs: list[Tensor] = [torch.empty(0)] * len(rows)
    for _, members in sorted(levels.items()):
        asked = [
            (nodes[parent.row] if isinstance(parent, Earlier) else parent, token)
            for parent, token in (rows[i] for i in members)
        ]
        for i, node, row in zip(members, *lm.extend(cache, asked), strict=True):
            nodes[i], logprobs[i] = node, row
    return nodes, torch.stack(logprobs)


class TabularLM:
    """A token LM given by a function from the tokens so far to V probabilities.

    Nodes are tuples of ids; nothing is cached. For tests and baselines.

    >>> lm = TabularLM(lambda history: [0.5, 0.25, 0.25], [b"a", b"b", None], eos_ids={2})
    >>> lm.root(lm.open())[1].exp().tolist()
    [0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        distribution: Callable[[History], Sequence[float] | np.ndarray],
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: Iterable[int] = (),
    ):
        self.distribution = distribution
        self.vocab_bytes = list(vocab_bytes)
        self.eos_ids = set(eos_ids)
        self.start_ids: list[int] = []

    def open(self) -> None:
        return None

    def _logprobs(self, history: tuple[int, ...]) -> Tensor:
        p = torch.as_tensor(np.asarray(self.distribution(history)), dtype=torch.float64)
        return p.log()

    def root(self, cache: None) -> tuple[History, Tensor]:
        return (), self._logprobs(())

    def extend(self, cache: None, rows: list[tuple[History, int]]) -> tuple[list[History], Tensor]:
        nodes = [(*history, token) for history, token in rows]
        return nodes, torch.stack([self._logprobs(history) for history in nodes])

    def release(self, cache: None, nodes: list[History]) -> None:
        return None


class NgramLM(TabularLM):
    """A token n-gram model with additive smoothing, interpolated over all orders up to `order`.

    p_k(t | h) = (count(h, t) + smoothing · V · p_{k-1}(t | shorter h)) / (count(h) + smoothing · V)
    from the last k - 1 tokens, and p_0 uniform over tokens with bytes and the end ids. Every token
    sequence is a text and is followed by the first of `eos_ids`.
    """

    def __init__(
        self,
        sequences: Iterable[Sequence[int]],
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: Iterable[int],
        order: int = 3,
        smoothing: float = 0.01,
    ):
        if order < 1:
            raise BytelmError(f"the order of an n-gram model must be at least 1, not {order}")
        super().__init__(self._interpolate, vocab_bytes, eos_ids=eos_ids)
        end = min(self.eos_ids)
        self.order, self.smoothing = order, smoothing
        self._counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for sequence in sequences:
            tokens = [*sequence, end]
            for i, token in enumerate(tokens):
                for length in range(min(order, i + 1)):
                    self._counts[tuple(tokens[i - length : i])][token] += 1
        allowed = np.array(
            [data is not None or i in self.eos_ids for i, data in enumerate(self.vocab_bytes)]
        )
        self._uniform = allowed / allowed.sum()

    def _interpolate(self, history: tuple[int, ...]) -> np.ndarray:
        p = self._uniform
        weight = self.smoothing * len(p)
        for length in range(min(self.order, len(history) + 1)):
            seen = self._counts.get(history[len(history) - length :])
            if seen is None:
                break
            p = p * (weight / (sum(seen.values()) + weight))
            p[list(seen)] += np.array(list(seen.values())) / (sum(seen.values()) + weight)
        return p
