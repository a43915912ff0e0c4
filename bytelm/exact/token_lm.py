"""`TokenLM`: all that the converter asks of a token language model.

The model is a tree of token strings. `open` makes a cache that holds the root (the model's start
tokens); `extend` appends one token to each of several nodes and returns the new nodes with the
distributions that follow them; `release` says which nodes will not be asked for again. Nodes are
whatever the model likes. That is enough for n-gram tables, a remote server or a transformer.

A model that can do better than one level at a time implements `TreeTokenLM` as well: a whole tree
of rows, for several caches, in one call. `extend_trees` below is the one door that the converter
uses, and breaks such a request into levels for the plain models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bytelm.exact.models.tabular import TabularLM as TabularLM  # the simplest one

Node = Any
Cache = Any


@dataclass(frozen=True, slots=True)
class PendingParent:
    """A parent that is row number `row` of the same request and has no node yet."""

    row: int


NodeRow = tuple["Node | PendingParent", int]  # parent and token: one row of the model


class TokenLM(Protocol):
    """A distribution over token strings, as a tree of nodes. What `bytelm.convert` takes besides
    Hugging Face models; nothing needs to be inherited.

    vocab_bytes  the bytes of each of the V ids; None = special token, which is never bytes
    eos_ids      specials that end a text
    start_ids    what stands before every text (BOS, or a document separator); may be empty

    All log-probabilities are natural logs, float32 or float64; -inf is allowed. A row of them need
    not be exactly normalised, but what is missing from 1 is lost in modes `all` and `canonical`.

    A model that reads its whole history each time, in full:

    >>> import torch
    >>> class Coin:
    ...     '''Tokens "a" and "ab" or the end, equally likely.'''
    ...     vocab_bytes, eos_ids, start_ids = [b"a", b"ab", None], {2}, []
    ...     def open(self):
    ...         return None
    ...     def root(self, cache):
    ...         return (), self.after(())
    ...     def extend(self, cache, rows):
    ...         nodes = [(*parent, token) for parent, token in rows]
    ...         return nodes, torch.stack([self.after(node) for node in nodes])
    ...     def release(self, cache, nodes):
    ...         pass
    ...     def after(self, tokens):
    ...         return torch.full((3,), 1 / 3).log()
    >>> from bytelm.exact import convert
    >>> round(convert(Coin()).start(b"a").logprobs().exp()[ord("b")].item(), 4)   # of "a", "ab"
    0.5
    """

    vocab_bytes: list[bytes | None]
    eos_ids: set[int]
    start_ids: list[int]

    def open(self) -> Cache:
        """A new cache for one text, holding the root node."""

    def root(self, cache: Cache) -> tuple[Node, Tensor]:
        """The root, which stands after `start_ids`, and (V,) log-probabilities of a text's first
        token."""

    def extend(self, cache: Cache, rows: list[tuple[Node, int]]) -> tuple[list[Node], Tensor]:
        """Append a token to each parent: R new nodes, and (R, V) log-probabilities of what follows
        each. Parents stay valid and may repeat."""

    def release(self, cache: Cache, nodes: list[Node]) -> None:
        """These nodes will not be parents any more, nor will their descendants be used."""


@runtime_checkable
class TreeTokenLM(TokenLM, Protocol):
    """A `TokenLM` that evaluates trees of new rows, for several caches, in one forward pass."""

    @abstractmethod
    def extend_trees(
        self, requests: list[tuple[Cache, list[NodeRow]]]
    ) -> list[tuple[list[Node], Tensor]]:
        """As `extend` for each (cache, rows); a parent may be a `PendingParent`, an earlier row of
        its request."""


def rows_per_call(lm: TokenLM) -> int:
    """How many rows a call of the model may have at about the cost of one: its `rows_per_call`, if
    it says so (models that read all their weights for each call do), else 1."""
    return int(getattr(lm, "rows_per_call", 1))


def extend_trees(
    lm: TokenLM, requests: list[tuple[Cache, list[NodeRow]]]
) -> list[tuple[list[Node], Tensor]]:
    """One answer per request, as `TreeTokenLM.extend_trees`: in one pass if the model can, else
    level by level."""
    if isinstance(lm, TreeTokenLM):
        return lm.extend_trees(requests)
    return [_by_levels(lm, cache, rows) for cache, rows in requests]


def _by_levels(lm: TokenLM, cache: Cache, rows: list[NodeRow]) -> tuple[list[Node], Tensor]:
    level = [0] * len(rows)
    levels = defaultdict(list)
    for i, (parent, _) in enumerate(rows):
        level[i] = level[parent.row] + 1 if isinstance(parent, PendingParent) else 0
        levels[level[i]].append(i)
    nodes: list[Node] = [None] * len(rows)
    logprobs: list[Tensor] = [torch.empty(0)] * len(rows)
    for _, members in sorted(levels.items()):
        asked = [
            (nodes[parent.row] if isinstance(parent, PendingParent) else parent, token)
            for parent, token in (rows[i] for i in members)
        ]
        for i, node, row in zip(members, *lm.extend(cache, asked), strict=True):
            nodes[i], logprobs[i] = node, row
    return nodes, torch.stack(logprobs)
