"""A tree of keys and values: `attend` for any model, and the one file that knows how models of the
package transformers attend.

Rows of a call are tokens of many token prefixes of many texts. They go through such a model as one
sequence of a batch of one, with explicit positions (the depth in the tree), and its attention is
replaced for the call by `tree_attention`: it appends the new keys and values of each layer to the
text's own buffer and attends with a mask of ancestors. So a node costs one slot, forks share all
they have in common, and nothing is ever copied per byte (buffers double when full, and slots of
released nodes are used again).

Anything the attention of a model does besides scaled dot products (soft caps, sinks) is refused,
and `huggingface.py` compares every new model with its own ordinary forward once, so a model whose
attention does not come through here cannot go unnoticed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import BytelmError

NAME = "bytelm_tree"
_FIRST_CAPACITY = 256
_BLOCK = 128  # slots that nodes share at once
_UNSUPPORTED = {"softcap": "soft-capped scores", "s_aux": "attention sinks"}


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """The slots of `_BLOCK` nodes in a row, and those before them: shared by all that follow."""

    before: _Slots | None
    slots: NDArray[np.int32]
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class TreeNode:
    """A token in the tree, with the slots of its ancestors and itself: whole blocks of them, which
    it shares with other nodes, and the rest. So a text of n tokens keeps O(n) of them."""

    blocks: _Slots | None
    rest: NDArray[np.int32]

    @classmethod
    def root(cls) -> TreeNode:
        """Before the first token."""
        return cls(None, np.zeros(0, np.int32))

    def child(self, slot: int) -> TreeNode:
        """The node of one more token, whose keys and values are in `slot`."""
        if len(self.rest) < _BLOCK:
            return TreeNode(self.blocks, np.append(self.rest, np.int32(slot)))
        return TreeNode(_Slots(self.blocks, self.rest, self.depth), np.array([slot], np.int32))

    @property
    def slot(self) -> int:
        """Where the cache has its keys and values."""
        return int(self.rest[-1])

    @property
    def depth(self) -> int:
        """The number of tokens, itself included."""
        return len(self.rest) + (self.blocks.depth if self.blocks else 0)

    def path(self) -> NDArray[np.int32]:
        """The slots of its ancestors and itself, root first."""
        parts, blocks = [self.rest], self.blocks
        while blocks is not None:
            parts.append(blocks.slots)
            blocks = blocks.before
        return np.concatenate(parts[::-1])


class TreeCache:
    """Keys and values of one text's tree, layer by layer: (heads, capacity, head width) each."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.used = 0  # slots below this have been given out at some time
        self._free: list[int] = []

    def take(self, count: int) -> list[int]:
        """Slots for `count` new nodes, low ones first."""
        slots = [heapq.heappop(self._free) for _ in range(min(count, len(self._free)))]
        fresh = range(self.used, self.used + count - len(slots))
        self.used += len(fresh)
        return [*slots, *fresh]

    def give_back(self, nodes: Sequence[TreeNode]) -> None:
        """The slots of these nodes may be used again."""
        for node in nodes:
            heapq.heappush(self._free, node.slot)

    def append(self, layer: int, key_HLK: Tensor, value_HLK: Tensor, slots: Tensor) -> None:
        """Write the new rows' keys and values of a layer into their slots (L,)."""
        if layer not in self.layers or self.layers[layer][0].shape[1] < self.used:
            self._grow(layer, key_HLK, value_HLK)
        keys, values = self.layers[layer]
        keys.index_copy_(1, slots, key_HLK)
        values.index_copy_(1, slots, value_HLK)

    def _grow(self, layer: int, key_HLK: Tensor, value_HLK: Tensor) -> None:
        old = self.layers.get(layer)
        capacity = max(_FIRST_CAPACITY, 2 * (old[0].shape[1] if old else 0), self.used)
        grown = []
        for i, new in enumerate((key_HLK, value_HLK)):
            buffer = new.new_zeros(new.shape[0], capacity, new.shape[2])
            if old:
                buffer[:, : old[i].shape[1]] = old[i]
            grown.append(buffer)
        self.layers[layer] = (grown[0], grown[1])


@dataclass
class Group:
    """The rows of one cache in a call: positions [start, stop) of the sequence.

    slots       (R,) int64, where the new rows' keys and values go
    ancestors   (R, used) bool, the slots that a row may look at
    """

    cache: TreeCache
    nodes: list[TreeNode]
    start: int
    stop: int
    slots: Tensor
    ancestors: NDArray[np.bool_]
    _bias: dict[tuple[int | None, int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, cache: TreeCache, nodes: list[TreeNode], start: int, device: torch.device) -> Group:
        """The group of new `nodes`, the first of them at position `start` of the sequence."""
        ancestors = np.zeros((len(nodes), cache.used), bool)
        for i, node in enumerate(nodes):
            ancestors[i, node.path()] = True
        slots = torch.tensor([node.slot for node in nodes], device=device)
        return cls(cache, nodes, start, start + len(nodes), slots, ancestors)

    def bias(
        self, like: Tensor, window: int | None, repeats: int, rule: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """(repeats · R, used) 0 where a row may look, -inf elsewhere; one for all heads that share
        keys. window: how many tokens back a sliding-window layer sees. rule: (rows of the call,
        depths), which depths of its path each row of the call may look at besides."""
        key = (window, repeats, id(rule))  # a rule lives as long as the call
        if key not in self._bias:
            seen = self.ancestors
            if window is not None or rule is not None:
                seen = np.zeros_like(seen)
                for i, node in enumerate(self.nodes):
                    whole = node.path()
                    path = whole[-window:] if window is not None else whole
                    if rule is not None:
                        first = len(whole) - len(path)
                        path = path[rule[self.start + i, first : len(whole)]]
                    seen[i, path] = True
            mask = torch.from_numpy(seen).to(like.device)
            bias = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
            bias = bias.masked_fill_(~mask, -torch.inf).repeat(repeats, 1)
            self._bias[key] = bias
        return self._bias[key]


@dataclass
class _Call:
    """The running call: its groups, and the rules behind the masks that were made for it."""

    groups: list[Group]
    rules: list[tuple[Tensor, NDArray[np.bool_]]] = field(default_factory=list)

    def rule_of(self, mask: Tensor | None, module: Any) -> NDArray[np.bool_] | None:
        """The rule behind a mask that a layer was given; `BytelmError` for one of other origin."""
        if mask is None:
            return None
        for made, rule in self.rules:
            if made is mask:
                return rule
        raise BytelmError(
            f"{type(module).__name__} attends with a mask of its own making (biases by distance, "
            "for one), which tree attention does not have"
        )


_call: ContextVar[_Call] = ContextVar("the running call")


@contextmanager
def tree_attention_in(model: Any, groups: list[Group]) -> Iterator[None]:
    """Within this context `model` attends along `groups` instead of along a sequence."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, tree_mask)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    token = _call.set(_Call(groups))
    try:
        yield
    finally:
        _call.reset(token)
        config._attn_implementation = before


def tree_mask(*, mask_function: Any, device: Any = "cpu", **options: Any) -> Tensor | None:
    """What transformers calls for each kind of mask: the model's own rule (which positions see
    which: windows, chunks), applied to the depths of the new rows and of their ancestors.

    -> None if every row sees all its ancestors, else (1, 1, R, depths) bool.
    """
    call = _call.get()
    rows = torch.tensor([node.depth - 1 for group in call.groups for node in group.nodes])
    ancestors = torch.arange(int(rows.max()) + 1)
    zero = torch.zeros((), dtype=torch.long)
    seen = mask_function(zero, zero, rows[:, None], ancestors[None, :])
    seen = torch.as_tensor(seen).expand(len(rows), len(ancestors)).cpu()
    if bool((seen | (ancestors[None, :] > rows[:, None])).all()):
        return None
    mask = seen[None, None].to(device)
    call.rules.append((mask, seen.numpy()))
    return mask


def tree_attention(
    module: Any,
    query: Tensor,  # (1, heads, R, head width)
    key: Tensor,  # (1, key heads, R, head width)
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: -> ((1, R, heads, value width), None).

    `BytelmError` for attention that does more than scaled dot products.
    """
    for name, meaning in _UNSUPPORTED.items():
        if options.get(name) is not None:
            raise BytelmError(
                f"{type(module).__name__} uses {meaning}, which tree attention does not have"
            )
    call = _call.get()
    out = attend(
        call.groups,
        module.layer_idx,
        (query[0], key[0], value[0]),
        scaling=scaling,
        window=options.get("sliding_window"),
        rule=call.rule_of(attention_mask, module),
    )
    return out.transpose(0, 1)[None].contiguous(), None


def attend(
    groups: Sequence[Group],
    layer: int,
    projected: tuple[Tensor, Tensor, Tensor],
    *,
    scaling: float | None = None,
    window: int | None = None,
    rule: NDArray[np.bool_] | None = None,
) -> Tensor:
    """(heads, R, value width): each new row attends to its ancestors and itself.

    projected   queries (heads, R, K), keys (key heads, R, K) and values of the new rows
    window      how many tokens of its path a row sees, itself included; None = all
    rule        as in `Group.bias`
    """
    pieces = [_attend(group, layer, *projected, scaling, window, rule) for group in groups]
    return torch.cat(pieces, dim=1)


def _attend(
    group: Group,
    layer: int,
    query_HRK: Tensor,
    key_GRK: Tensor,
    value_GRK: Tensor,
    scaling: float | None,
    window: int | None,
    rule: NDArray[np.bool_] | None,
) -> Tensor:
    """The group's rows attend to their ancestors: (heads, R, value width). Heads that share keys
    (G key heads) are laid side by side as rows, so that keys are never repeated."""
    rows = slice(group.start, group.stop)
    group.cache.append(layer, key_GRK[:, rows], value_GRK[:, rows], group.slots)
    keys, values = group.cache.layers[layer]
    heads, key_heads = query_HRK.shape[0], key_GRK.shape[0]
    repeats = heads // key_heads
    stacked = query_HRK[:, rows].reshape(key_heads, -1, query_HRK.shape[-1])
    used = group.cache.used
    out = F.scaled_dot_product_attention(
        stacked[None],
        keys[None, :, :used],
        values[None, :, :used],
        attn_mask=group.bias(query_HRK, window, repeats, rule),
        scale=scaling,
    )
    return out.reshape(heads, group.stop - group.start, -1)
