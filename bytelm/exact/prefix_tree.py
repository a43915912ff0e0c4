"""The tree of token strings that a text's covers stand on, each evaluated at most once.

A cover is a trunk (whole tokens inside the text) and one last token that reaches its end. Trunks
share their beginnings, so they form a tree, and one `TrunkTree` keeps the tree of one text and of
everything forked from it. Two choices a reader may question. A trunk's distribution (a row of V
numbers) is held by whoever still needs it and only weakly by the trunk, because a long text keeps
thousands of trunks as ancestors but reads a handful. And trunks are collected by Python: when the
last state that stands on one goes, its node is handed to `TokenLM.release` before the next call.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bytelm.exact.token_lm import Cache, Earlier, Node, Row, TokenLM, extend_trees
from bytelm.exact.tokenizers.vocabulary import Range, VocabularyIndex


class Distribution:
    """What a token LM says after one trunk: (V,) natural-log probabilities, and sums over places.

    `end` is P(end of text), `total` the mass of all ordinary tokens and the end (1 minus that of
    the excluded specials).
    """

    __slots__ = ("index", "logp", "end", "total", "_p", "__weakref__")

    def __init__(self, index: VocabularyIndex, logp: NDArray[np.floating]):
        self.index = index
        self.logp = logp
        self.end = float(np.exp(logp[index.eos_ids], dtype=np.float64).sum())
        excluded = float(np.exp(logp[index.excluded], dtype=np.float64).sum())
        self.total = 1.0 - excluded
        self._p: NDArray[np.float64] | None = None

    @property
    def p(self) -> NDArray[np.float64]:
        """Probabilities of the ordinary tokens by place. float64, so that 1e-300 is still a mass
        and sums of 100,000 terms keep their digits."""
        if self._p is None:
            self._p = np.exp(self.logp[self.index.order], dtype=np.float64)
        return self._p

    def mass(self, places: Range) -> float:
        """The probability that the next token is in the range."""
        lo, hi = places
        if self._p is None and hi - lo < len(self.index.order) // 4:
            return float(np.exp(self.logp[self.index.order[lo:hi]], dtype=np.float64).sum())
        return float(self.p[lo:hi].sum())


class Trunk:
    """A token string, as a node of the tree; `end` is the number of text bytes it spells.

    `logprob` is log P of its tokens given the base of the tree; None until its parent is evaluated.
    """

    __slots__ = (
        "tree", "parent", "token", "end", "logprob", "node", "distribution", "children",
        "__weakref__",
    )  # fmt: skip

    def __init__(self, tree: TrunkTree, parent: Trunk | None, token: int | None, end: int):
        self.tree = tree
        self.parent = parent
        self.token = token
        self.end = end
        self.logprob: float | None = None
        self.node: Node = None
        self.distribution: weakref.ref[Distribution] | None = None
        self.children: weakref.WeakValueDictionary[int, Trunk] = weakref.WeakValueDictionary()

    def child(self, token: int) -> Trunk:
        """The trunk one token longer: the existing one, or a new one that is not yet evaluated."""
        known = self.children.get(token)
        if known is None:
            data = self.tree.index.vocab_bytes[token]
            known = Trunk(self.tree, self, token, self.end + len(data or b""))
            self.children[token] = known
            current = self.current()
            if current is not None:
                known.weigh(current)
        return known

    def walk(self, tokens: Iterable[int]) -> Trunk:
        """The descendant along `tokens`."""
        trunk = self
        for token in tokens:
            trunk = trunk.child(token)
        return trunk

    def weigh(self, parent: Distribution) -> None:
        """Set `logprob` from the parent's distribution."""
        assert self.parent is not None and self.parent.logprob is not None
        self.logprob = self.parent.logprob + float(parent.logp[self.token])

    def current(self) -> Distribution | None:
        """The distribution after this trunk, if somebody still holds it."""
        return None if self.distribution is None else self.distribution()

    def path(self) -> Iterator[Trunk]:
        """This trunk and all it stands on, the root last."""
        trunk: Trunk | None = self
        while trunk is not None:
            yield trunk
            trunk = trunk.parent

    def stands_on(self, other: Trunk) -> bool:
        """Whether `other` is this trunk or one of its beginnings."""
        return any(
            trunk is other for trunk in takewhile(lambda trunk: trunk.end >= other.end, self.path())
        )

    def tokens(self) -> list[int]:
        """The tokens since the root of the tree, specials of the context included."""
        return [trunk.token for trunk in self.path() if trunk.token is not None][::-1]

    def __del__(self) -> None:
        if self.node is not None:
            self.tree.unused.append(self.node)


class TrunkTree:
    """All trunks of one text over one cache of the token LM. `rows` counts the LM rows evaluated
    after the root."""

    def __init__(self, lm: TokenLM, index: VocabularyIndex):
        self.lm = lm
        self.index = index
        self.cache: Cache = lm.open()
        self.rows = 0
        self.unused: list[Node] = []
        self.root = Trunk(self, None, None, 0)
        self.root.node, logprobs = lm.root(self.cache)
        self.root.logprob = 0.0
        self.start = Distribution(index, _array(logprobs))
        self.root.distribution = weakref.ref(self.start)

    def release_unused(self) -> None:
        """Tell the model which nodes are gone."""
        if self.unused:
            nodes, self.unused = self.unused, []
            self.lm.release(self.cache, nodes)


def _array(logprobs: Tensor) -> NDArray[np.floating]:
    return logprobs.detach().cpu().numpy()


def evaluate(trunks: Iterable[Trunk]) -> list[Distribution]:
    """The distribution after each trunk, in one LM call for all trees.

    What is known already is not asked again; ancestors that were only planned are evaluated too.
    """
    trunks = list(trunks)
    fresh: dict[Trunk, Distribution | None] = {}
    for trunk in trunks:
        _collect(trunk, fresh)
    if fresh:
        _extend(fresh)
    found = [fresh.get(trunk) or trunk.current() for trunk in trunks]
    assert all(found), "a trunk lost its distribution while it was being evaluated"
    return found  # type: ignore[return-value]


def _collect(trunk: Trunk, fresh: dict[Trunk, Distribution | None]) -> None:
    """Put the trunk and what it stands on into `fresh`, ancestors first."""
    path = []
    current: Trunk | None = trunk
    while current is not None and current not in fresh and current.current() is None:
        path.append(current)
        parent = current.parent
        needs_parent = current.logprob is None or (parent is not None and parent.node is None)
        current = parent if needs_parent else None
    fresh.update(dict.fromkeys(reversed(path)))


def _extend(fresh: dict[Trunk, Distribution | None]) -> None:
    """Evaluate the trunks of `fresh`, which lists parents before children."""
    trees: dict[TrunkTree, list[Trunk]] = {}
    for trunk in fresh:
        trees.setdefault(trunk.tree, []).append(trunk)
    requests: list[tuple[Cache, list[Row]]] = []
    for tree, members in trees.items():
        tree.release_unused()
        place = {trunk: i for i, trunk in enumerate(members)}
        rows: list[Row] = []
        for trunk in members:
            parent, token = trunk.parent, trunk.token
            assert parent is not None and token is not None, "the root is always evaluated"
            rows.append((Earlier(place[parent]) if parent.node is None else parent.node, token))
        requests.append((tree.cache, rows))
        tree.rows += len(rows)
    first = next(iter(trees))
    answers = extend_trees(first.lm, requests)
    for (tree, members), (nodes, logprobs) in zip(trees.items(), answers, strict=True):
        for trunk, node, row in zip(members, nodes, _array(logprobs), strict=True):
            # A copy: a view would keep the rows of the whole call alive with the last of them.
            fresh[trunk] = _settle(tree, trunk, node, row.copy())
        for trunk in members:
            if trunk.logprob is None:
                assert trunk.parent is not None
                known = fresh.get(trunk.parent) or trunk.parent.current()
                assert known is not None, "a parent must be evaluated before its child"
                trunk.weigh(known)


def _settle(tree: TrunkTree, trunk: Trunk, node: Node, row: NDArray[np.floating]) -> Distribution:
    """Store what the model answered for one trunk."""
    if trunk.node is None:
        trunk.node = node
    else:  # evaluated again after its distribution was dropped: keep the node that children use
        tree.unused.append(node)
    distribution = Distribution(tree.index, row)
    trunk.distribution = weakref.ref(distribution)
    return distribution
