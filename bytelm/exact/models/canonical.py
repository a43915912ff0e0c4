"""A token LM made canonical by construction: the estimand `canonicalised`.

After each token prefix, tokens that the tokenizer would never write there are masked and the rest
is renormalised ("local canonicalisation", Vieira et al., ICML 2025). For this model the sum over
all encodings and the sum over canonical ones are the same number, so a converter on it is exact in
every sense at one row per byte. The price is a validity test of every token after every token
prefix; it is a matter of the last few tokens only and cached, but for a vocabulary of 50,000 it
costs about as much as a row of a small model on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.exact.token_lm import Cache, Node, NodeRow, PendingParent, TokenLM, extend_trees
from bytelm.exact.tokenizers.encoders import Encoder, Tokens


@dataclass(frozen=True, slots=True)
class _Masked:
    """A node: the inner one, and the text and tokens since a point where encoding may restart."""

    inner: Node
    window: bytes
    tokens: Tokens


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
        self._longest = max(len(data) for data in lm.vocab_bytes if data)
        self._valid = lru_cache(maxsize=4096)(self._find_valid)

    def open(self) -> Cache:
        return self.lm.open()

    def root(self, cache: Cache) -> tuple[_Masked, Tensor]:
        inner, logprobs = self.lm.root(cache)
        node = _Masked(inner, b"", ())
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

    def _child(self, parent: _Masked, token: int, inner: Node) -> _Masked:
        data = self.vocab_bytes[token]
        if data is None:  # a special symbol of the context: encoding starts from scratch
            return _Masked(inner, b"", ())
        window, tokens = parent.window + data, (*parent.tokens, token)
        at = self.encoder.restart(window, 0) or self.encoder.restart(window, self._settled(window))
        while at > 0 and tokens:
            first = self.vocab_bytes[tokens[0]] or b""
            if len(first) > at:  # the prefix is not canonical: leave it whole, it has no mass
                break
            window, tokens, at = window[len(first) :], tokens[1:], at - len(first)
        return _Masked(inner, window, tokens)

    def _settled(self, window: bytes) -> int:
        """The bytes of the window that are spelled by the same tokens whatever follows it: those
        that the encodings have in common which stop where a token may reach beyond the end. 0 for a
        short window, which costs nothing to keep."""
        if len(window) < 2 * self._longest:
            return 0
        shared: Tokens | None = None
        for cut in range(len(window) - self._longest + 1, len(window) + 1):
            for tokens in self.encoder.prefixes(window[:cut]):
                if tokens is None:
                    continue
                pairs = zip(tokens, tokens if shared is None else shared, strict=False)
                shared = tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return sum(len(self.vocab_bytes[token] or b"") for token in shared or ())

    def _mask(self, node: _Masked, logprobs: Tensor) -> Tensor:
        valid = torch.from_numpy(self._valid(node.window, node.tokens))
        masked = logprobs.masked_fill(~valid, -torch.inf)
        if self.renormalise and bool(valid.any()):
            masked = masked - torch.nan_to_num(masked.logsumexp(-1), neginf=0.0)
        return masked

    def _find_valid(self, window: bytes, tokens: Tokens) -> NDArray[np.bool_]:
        """(V,) which ids may follow `tokens`, which spell `window`."""
        valid = np.zeros(len(self.vocab_bytes), bool)
        here = self.encoder.prefixes(window)
        if tokens not in here:
            return valid
        valid[list(self.eos_ids)] = tokens == here[0]
        for token, data in enumerate(self.vocab_bytes):
            if data is not None:
                valid[token] = (*tokens, token) in self.encoder.prefixes(window + data)
        return valid
