"""Token strings as nodes of a tree: each holds the string before it, and finds the longer ones.

A node is held by whoever needs it and by the longer ones; it knows those only weakly, so a text
keeps the nodes of its own tokens and nothing of the ways it did not take. Two strings are the same
if their nodes are.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

Self = TypeVar("Self", bound="TokenNode")  # type: ignore[type-arg]


class TokenNode(ABC, Generic[Self]):
    """A token string: its last token (None for none) and the string before. `end`: bytes that it
    spells."""

    __slots__ = ("parent", "token", "end", "_children", "__weakref__")

    def __init__(self, parent: Self | None, token: int | None, end: int):
        self.parent = parent
        self.token = token
        self.end = end
        self._children: dict[int, weakref.ref[Self]] = {}

    @abstractmethod
    def _longer(self, token: int) -> Self:
        """A new node for this string and one more token."""

    def child(self, token: int) -> Self:
        """The string one token longer: the node that somebody holds, or a new one."""
        known = self._children.get(token)
        node = known() if known is not None else None
        if node is None:
            node = self._longer(token)
            self._children[token] = weakref.ref(node)
        return node

    def children(self) -> list[Self]:
        """The nodes one token longer that somebody holds."""
        found = [reference() for reference in self._children.values()]
        return [node for node in found if node is not None]

    def __del__(self) -> None:
        if self.parent is not None and self.token is not None:
            self.parent._children.pop(self.token, None)


class TokenString(TokenNode["TokenString"]):
    """A token string and nothing else.

    >>> trie = PrefixTrie([b"a", b"bc"])
    >>> root = TokenString(trie)
    >>> root.child(0).child(1).end, root.child(0) is root.child(0)
    (3, True)
    """

    __slots__ = ("trie",)

    def __init__(
        self,
        trie: PrefixTrie,
        parent: TokenString | None = None,
        token: int | None = None,
        end: int = 0,
    ):
        super().__init__(parent, token, end)
        self.trie = trie

    def _longer(self, token: int) -> TokenString:
        data = self.trie.vocab_bytes[token] or b""
        return TokenString(self.trie, self, token, self.end + len(data))
