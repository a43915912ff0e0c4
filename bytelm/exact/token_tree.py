"""The tree of token prefixes that a text's covers stand on, each evaluated at most once.

A cover is a token prefix (whole tokens inside the text) and one last token that reaches its end.
Token prefixes share their beginnings, so they form a tree, and one `TokenTree` keeps the tree of
one text and of everything forked from it. Two choices a reader may question. The distribution after
a token prefix (V numbers) is held by whoever still needs it and only weakly by the prefix, because
a long text keeps thousands of token prefixes as ancestors but reads a handful. And token prefixes
are collected by Python: when the last state that stands on one goes, its node is handed to
`TokenLM.release` before the next call.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.exact.token_lm import Cache, Node, NodeRow, PendingParent, TokenLM, extend_trees
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie, Range
from bytelm.exact.tokenizers.token_node import TokenNode

ROWS_PER_BLOCK = 256  # distributions that are held at once while many rows are evaluated
_MOST = 1.01  # what probabilities in a low precision may sum to


class Distribution:
    """What a token LM says after one token prefix: (V,) natural-log probabilities, and sums of
    probabilities over ranges of the prefix trie.

    `end` is P(end of text), `tokens` the mass of all ordinary tokens: sums of what is kept, never 1
    less what is not, which has no digits left where an excluded special is near probability 1.
    `zeros`: whether some ordinary token is impossible. `BytelmError` if it is no distribution.
    """

    __slots__ = ("trie", "logp", "end", "tokens", "zeros", "_p", "__weakref__")

    def __init__(self, trie: PrefixTrie, logp: NDArray[np.floating]):
        self.trie = trie
        self.logp = logp
        self.end = float(np.exp(logp[trie.eos_ids], dtype=np.float64).sum())
        kept = logp[trie.order]
        self.tokens = float(np.exp(kept).sum(dtype=np.float64))
        self.zeros = bool(np.isneginf(kept.min()))
        self._p: NDArray[np.float64] | None = None
        if not self.end + self.tokens <= _MOST:
            raise BytelmError(
                f"the token model's probabilities sum to {self.end + self.tokens:.4g} where at "
                "most 1 is possible: its weights are broken (not finite), or it gives something "
                "else than natural-log probabilities"
            )

    @property
    def p(self) -> NDArray[np.float64]:
        """Probabilities of the ordinary tokens in the order of the trie. float64, so that 1e-300 is
        still a mass and sums of 100,000 terms keep their digits."""
        if self._p is None:
            self._p = np.exp(self.logp[self.trie.order], dtype=np.float64)
        return self._p

    def mass(self, token_range: Range) -> float:
        """The probability that the next token is in the range."""
        lo, hi = token_range
        if self._p is None and hi - lo < len(self.trie.order) // 4:
            return float(np.exp(self.logp[self.trie.order[lo:hi]], dtype=np.float64).sum())
        return float(self.p[lo:hi].sum())


class TokenPrefix(TokenNode["TokenPrefix"]):
    """A token string, as a node of the tree; `end` is the number of text bytes it spells.

    `logprob` is log P (nats) of its tokens given the base of the tree; None until its parent is
    evaluated.
    """

    __slots__ = ("tree", "logprob", "node", "distribution")

    def __init__(self, tree: TokenTree, parent: TokenPrefix | None, token: int | None, end: int):
        super().__init__(parent, token, end)
        self.tree = tree
        self.logprob: float | None = None
        self.node: Node = None
        self.distribution: weakref.ref[Distribution] | None = None

    def _longer(self, token: int) -> TokenPrefix:
        """A prefix that is not yet evaluated."""
        data = self.tree.trie.vocab_bytes[token]
        longer = TokenPrefix(self.tree, self, token, self.end + len(data or b""))
        current = self.current()
        if current is not None:
            longer.set_logprob(current)
        return longer

    def descend(self, tokens: Iterable[int]) -> TokenPrefix:
        """The descendant along `tokens`."""
        prefix = self
        for token in tokens:
            prefix = prefix.child(token)
        return prefix

    def set_logprob(self, parent: Distribution) -> None:
        """Set `logprob` from the parent's distribution."""
        assert self.parent is not None and self.parent.logprob is not None
        self.logprob = self.parent.logprob + float(parent.logp[self.token])

    def current(self) -> Distribution | None:
        """The distribution after this prefix, if somebody still holds it."""
        return None if self.distribution is None else self.distribution()

    def path(self) -> Iterator[TokenPrefix]:
        """This prefix and all it stands on, the root last."""
        prefix: TokenPrefix | None = self
        while prefix is not None:
            yield prefix
            prefix = prefix.parent

    def starts_with(self, other: TokenPrefix) -> bool:
        """Whether `other` is this prefix or one of its beginnings."""
        long_enough = takewhile(lambda prefix: prefix.end >= other.end, self.path())
        return any(prefix is other for prefix in long_enough)

    def tokens(self) -> list[int]:
        """The tokens since the root of the tree, specials of the context included."""
        return [prefix.token for prefix in self.path() if prefix.token is not None][::-1]

    def __del__(self) -> None:
        super().__del__()
        if self.node is not None:
            self.tree.unused.append(self.node)


class TokenTree:
    """All token prefixes of one text over one cache of the token LM. `rows` counts the LM rows
    evaluated after the root."""

    def __init__(self, lm: TokenLM, trie: PrefixTrie):
        self.lm = lm
        self.trie = trie
        self.cache: Cache = lm.open()
        self.rows = 0
        self.unused: list[Node] = []
        self.root = TokenPrefix(self, None, None, 0)
        self.root.node, logprobs = lm.root(self.cache)
        self.root.logprob = 0.0
        self.start = Distribution(trie, _array(logprobs))
        self.root.distribution = weakref.ref(self.start)

    def release_unused(self) -> None:
        """Tell the model which nodes are gone."""
        if self.unused:
            nodes, self.unused = self.unused, []
            self.lm.release(self.cache, nodes)


def _array(logprobs: Tensor) -> NDArray[np.floating]:
    return logprobs.detach().cpu().numpy()


def evaluate(prefixes: Iterable[TokenPrefix]) -> list[Distribution]:
    """The distribution after each token prefix, in order, in one LM call for all trees, or several
    if they are many.

    What is known already is not asked again; ancestors that were only planned are evaluated too,
    but their distributions are held no longer than it takes.
    """
    prefixes = list(prefixes)
    fresh: dict[TokenPrefix, None] = {}
    for prefix in prefixes:
        _collect(prefix, fresh)
    found = {prefix: held for prefix in prefixes if (held := prefix.current()) is not None}
    if fresh:
        waiting: dict[TokenPrefix, list[TokenPrefix]] = {}
        for prefix in fresh:
            if prefix.logprob is not None or prefix.parent is None:
                continue
            known = prefix.parent.current()
            if known is not None:
                prefix.set_logprob(known)
            else:
                waiting.setdefault(prefix.parent, []).append(prefix)
        wanted, rows = set(prefixes), list(fresh)
        for start in range(0, len(rows), ROWS_PER_BLOCK):
            answered = _extend(rows[start : start + ROWS_PER_BLOCK])
            for prefix, distribution in answered.items():
                for child in waiting.get(prefix, ()):
                    child.set_logprob(distribution)
            found.update((p, d) for p, d in answered.items() if p in wanted)
            del answered
    return [found[prefix] for prefix in prefixes]


def _collect(prefix: TokenPrefix, fresh: dict[TokenPrefix, None]) -> None:
    """Put the prefix and what it stands on into `fresh`, ancestors first."""
    path = []
    current: TokenPrefix | None = prefix
    while current is not None and current not in fresh and current.current() is None:
        path.append(current)
        parent = current.parent
        needs_parent = current.logprob is None or (parent is not None and parent.node is None)
        current = parent if needs_parent else None
    fresh.update(dict.fromkeys(reversed(path)))


def _extend(fresh: Sequence[TokenPrefix]) -> dict[TokenPrefix, Distribution]:
    """Evaluate the token prefixes, of which parents come before children."""
    trees: dict[TokenTree, list[TokenPrefix]] = {}
    for prefix in fresh:
        trees.setdefault(prefix.tree, []).append(prefix)
    requests: list[tuple[Cache, list[NodeRow]]] = []
    for tree, members in trees.items():
        tree.release_unused()
        place = {prefix: i for i, prefix in enumerate(members)}
        rows: list[NodeRow] = []
        for prefix in members:
            parent, token = prefix.parent, prefix.token
            assert parent is not None and token is not None, "the root is always evaluated"
            node = PendingParent(place[parent]) if parent.node is None else parent.node
            rows.append((node, token))
        requests.append((tree.cache, rows))
        tree.rows += len(rows)
    answers = extend_trees(next(iter(trees)).lm, requests)
    answered: dict[TokenPrefix, Distribution] = {}
    for (tree, members), (nodes, logprobs) in zip(trees.items(), answers, strict=True):
        for prefix, node, row in zip(members, nodes, _array(logprobs), strict=True):
            # A copy: a view would keep the rows of the whole call alive with the last of them.
            answered[prefix] = _store(tree, prefix, node, row.copy())
    return answered


def _store(
    tree: TokenTree, prefix: TokenPrefix, node: Node, row: NDArray[np.floating]
) -> Distribution:
    """Store what the model answered for one token prefix."""
    if prefix.node is None:
        prefix.node = node
    else:  # evaluated again after its distribution was dropped: keep the node that children use
        tree.unused.append(node)
    distribution = Distribution(tree.trie, row)
    prefix.distribution = weakref.ref(distribution)
    return distribution
