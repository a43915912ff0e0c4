"""`TreeLM`: what token models with a tree of keys and values share.

A node is a slot in the text's cache and the slots of its ancestors; new rows of any number of texts
go through the model together, at most `ROWS_PER_FORWARD` of them at a time, fewer where their texts
are long. A model supplies one forward over such rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.models.tree_attention import Group, TreeCache, TreeNode
from bytelm.exact.token_lm import NodeRow, PendingParent
from bytelm.memory import trim_freed_memory

ROWS_PER_FORWARD = 512
MASK_NUMBERS = 1 << 22  # rows times slots of a forward pass: its masks and scores
_LEAST_ROWS = 16
_MANY_ROWS = 32  # of a forward pass, after which its freed memory is given back
ROWS_PER_CALL = 8  # rows that cost little more than one: the weights are read once


class TreeLM(ABC):
    """A `TreeTokenLM` over a tree of keys and values. A subclass supplies `forward`.

    limit            the longest path in tokens, start tokens included; None = no limit
    limit_reason     why, where it is not the model's own context
    rows_evaluated   counts token rows through the model
    """

    def __init__(
        self,
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: set[int],
        start_ids: Sequence[int],
        device: torch.device,
        limit: int | None = None,
    ):
        self.vocab_bytes = list(vocab_bytes)
        self.eos_ids = eos_ids
        self.start_ids = list(start_ids)
        self.limit = limit
        self.limit_reason = ""
        self.rows_evaluated = 0
        self.rows_per_call = ROWS_PER_CALL
        self._device = device

    @abstractmethod
    def forward(self, ids: list[int], groups: list[Group]) -> Tensor:
        """(R, V) log-probabilities after each of R new rows; row r's token is ids[r], its position
        the number of its node's ancestors."""

    def open(self) -> TreeCache:
        return TreeCache()

    def root(self, cache: TreeCache) -> tuple[TreeNode, Tensor]:
        rows: list[NodeRow] = [(TreeNode.root(), self.start_ids[0])]
        rows += [(PendingParent(i), token) for i, token in enumerate(self.start_ids[1:])]
        ((nodes, logprobs),) = self.extend_trees([(cache, rows)])
        return nodes[-1], logprobs[-1]

    def extend(
        self, cache: TreeCache, rows: list[tuple[TreeNode, int]]
    ) -> tuple[list[TreeNode], Tensor]:
        ((nodes, logprobs),) = self.extend_trees([(cache, list(rows))])
        return nodes, logprobs

    def release(self, cache: TreeCache, nodes: list[TreeNode]) -> None:
        cache.give_back(nodes)

    def extend_trees(
        self, requests: list[tuple[TreeCache, list[NodeRow]]]
    ) -> list[tuple[list[TreeNode], Tensor]]:
        planned = [(cache, rows, self._plan(cache, rows)) for cache, rows in requests]
        pieces: list[list[Tensor]] = [[] for _ in planned]
        used = max(cache.used for cache, _ in requests)
        most = min(ROWS_PER_FORWARD, max(_LEAST_ROWS, MASK_NUMBERS // max(used, 1)))
        for batch in self._batches([len(rows) for _, rows in requests], most):
            groups, ids, start = [], [], 0
            for i, low, high in batch:
                cache, rows, nodes = planned[i]
                groups.append(Group.of(cache, nodes[low:high], start, self._device))
                ids += [token for _, token in rows[low:high]]
                start += high - low
            logprobs = self.forward(ids, groups)
            self.rows_evaluated += len(ids)
            if len(ids) >= _MANY_ROWS:
                trim_freed_memory()
            for (i, _, _), group in zip(batch, groups, strict=True):
                pieces[i].append(logprobs[group.start : group.stop])
        return [
            (nodes, torch.cat(parts)) for (_, _, nodes), parts in zip(planned, pieces, strict=True)
        ]

    @staticmethod
    def _batches(sizes: list[int], most: int) -> list[list[tuple[int, int, int]]]:
        """(request, low, high) spans, in order, in batches of at most `most` rows."""
        batches: list[list[tuple[int, int, int]]] = [[]]
        room = most
        for i, size in enumerate(sizes):
            low = 0
            while low < size:
                if not room:
                    batches.append([])
                    room = most
                high = min(size, low + room)
                batches[-1].append((i, low, high))
                room -= high - low
                low = high
        return batches

    def _plan(self, cache: TreeCache, rows: list[NodeRow]) -> list[TreeNode]:
        """Nodes with slots for the new rows."""
        nodes: list[TreeNode] = []
        for (parent, _), slot in zip(rows, cache.take(len(rows)), strict=True):
            before = nodes[parent.row] if isinstance(parent, PendingParent) else parent
            nodes.append(before.child(slot))
        longest = max(node.depth for node in nodes)
        if self.limit is not None and longest > self.limit:
            cache.give_back(nodes)
            why = f" ({self.limit_reason})" if self.limit_reason else ""
            raise BytelmError(
                f"the text needs {longest} tokens with its start tokens, but the model's context "
                f"is {self.limit}{why}: read it in windows (window=N bytes), or give a shorter "
                "context"
            )
        return nodes


def depths(groups: Sequence[Group]) -> list[int]:
    """The position of each new row in its text."""
    return [node.depth - 1 for group in groups for node in group.nodes]
