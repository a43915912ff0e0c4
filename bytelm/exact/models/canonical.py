"""A token LM made canonical by construction: the estimand `canonicalised`.

After each token prefix, tokens that the tokenizer would never write there are masked and the rest
is renormalised ("local canonicalisation", Vieira et al., ICML 2025). For this model the sum over
all encodings and the sum over canonical ones are the same number, so a converter on it is exact in
every sense at one row per byte. The price is a validity test of every token after every token
prefix. It depends on the last token and on where the pre-tokenizer stands alone, so what was found
last is kept; a new one costs one step of the tokenizer's cursor for each node of the prefix trie,
about a second for a vocabulary of 50,000.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from os.path import commonprefix

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.exact.token_lm import (
    Cache,
    Node,
    NodeRow,
    PendingParent,
    TokenLM,
    extend_trees,
    rows_per_call,
)
from bytelm.exact.tokenizers.cursor import Cursor
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.token_node import TokenString

_MASKS = 1 << 12  # masks kept: V bits each


@dataclass(frozen=True, slots=True)
class _Masked:
    """A node: the inner one, its token string, and the tokenizer's cursor at its end."""

    inner: Node
    string: TokenString
    cursor: Cursor


class CanonicalLM:
    """`lm` restricted to what `encoder` writes. A `TreeTokenLM`.

    Local canonicalisation (Vieira et al., ICML 2025): masked at each token, not conditioned on the
    whole string being canonical, which cannot be computed exactly.

    renormalise=False keeps the masked probabilities as they are; the converter on top of it then
    computes the canonical restriction with invalid last tokens removed as well (Phan et al.).
    """

    def __init__(self, lm: TokenLM, encoder: Encoder, *, renormalise: bool = True):
        self.lm = lm
        self.encoder = encoder
        self.renormalise = renormalise
        self.vocab_bytes = lm.vocab_bytes
        self.eos_ids = lm.eos_ids
        self.start_ids = lm.start_ids
        self.rows_per_call = rows_per_call(lm)
        self._trie = PrefixTrie(lm.vocab_bytes, lm.eos_ids)
        self._masks: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()

    def open(self) -> Cache:
        return self.lm.open()

    def root(self, cache: Cache) -> tuple[_Masked, Tensor]:
        inner, logprobs = self.lm.root(cache)
        node = self._first(inner)
        return node, self._mask(node, logprobs)

    def extend(self, cache: Cache, rows: list[tuple[_Masked, int]]) -> tuple[list[_Masked], Tensor]:
        ((nodes, logprobs),) = self.extend_trees([(cache, list(rows))])
        return nodes, logprobs

    def extend_trees(
        self, requests: list[tuple[Cache, list[NodeRow]]]
    ) -> list[tuple[list[Node], Tensor]]:
        inner_requests: list[tuple[Cache, list[NodeRow]]] = [
            (cache, [(p if isinstance(p, PendingParent) else p.inner, token) for p, token in rows])
            for cache, rows in requests
        ]
        answers = []
        for (_, rows), (inner, logprobs) in zip(
            requests, extend_trees(self.lm, inner_requests), strict=True
        ):
            nodes: list[Node] = []
            for (parent, token), node in zip(rows, inner, strict=True):
                before = nodes[parent.row] if isinstance(parent, PendingParent) else parent
                nodes.append(self._child(before, token, node))
            masked = [self._mask(n, row) for n, row in zip(nodes, logprobs, strict=True)]
            answers.append((nodes, torch.stack(masked)))
        return answers

    def release(self, cache: Cache, nodes: list[_Masked]) -> None:
        self.lm.release(cache, [node.inner for node in nodes])

    def _first(self, inner: Node) -> _Masked:
        """A node where encoding starts: the root, or one after a special symbol of a context."""
        string = TokenString(self._trie)
        return _Masked(inner, string, self.encoder.begin(string, self._trie))

    def _child(self, parent: _Masked, token: int, inner: Node) -> _Masked:
        data = self.vocab_bytes[token]
        if data is None:
            return self._first(inner)
        cursor = parent.cursor
        for byte in data:
            cursor = cursor.push(byte)
        return _Masked(inner, parent.string.child(token), cursor)

    def _mask(self, node: _Masked, logprobs: Tensor) -> Tensor:
        valid = torch.from_numpy(self._valid(node))
        masked = logprobs.masked_fill(~valid, -torch.inf)
        if self.renormalise and bool(valid.any()):
            masked = masked - torch.nan_to_num(masked.logsumexp(-1), neginf=0.0)
        return masked

    def _valid(self, node: _Masked) -> NDArray[np.bool_]:
        """(V,) which ids may follow the node, from the masks found last."""
        here = node.cursor.here()
        key = None
        if node.string in here:
            key = (node.cursor.key(node.string), node.string is here[0])
        packed = self._masks.pop(key, None)
        if packed is None:
            packed = np.packbits(self._find_valid(node))
        self._masks[key] = packed
        if len(self._masks) > _MASKS:
            self._masks.popitem(last=False)
        return np.unpackbits(packed, count=len(self.vocab_bytes)).astype(bool)

    def _find_valid(self, node: _Masked) -> NDArray[np.bool_]:
        """(V,) which ids may follow the node: the tokens that some canonical token string has
        there. Tokens are read in the order of the trie, so that each shared beginning of them is
        read once."""
        valid = np.zeros(len(self.vocab_bytes), bool)
        here = node.cursor.here()
        if node.string not in here:  # not canonical: it has no mass, nor has what follows
            return valid
        valid[list(self.eos_ids)] = node.string is here[0]
        cursors, before = [node.cursor], b""
        for token in self._trie.order.tolist():
            data = self.vocab_bytes[token]
            assert data is not None, "the trie has ordinary tokens only"
            shared = len(commonprefix([data, before]))
            del cursors[shared + 1 :]
            for byte in data[shared:]:
                cursors.append(cursors[-1].push(byte))
            before = data
            valid[token] = any(
                found is not None and found.parent is node.string and found.token == token
                for found in cursors[-1].here()
            )
        return valid
