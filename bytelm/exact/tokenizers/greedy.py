"""The cursor of greedy longest match (RWKV): the longest token that the rest of the text starts
with, again and again.

While a longer token may still come, what follows the longest one so far is read on beside it, from
one place after the other. No more of them are open at once than the longest token has bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from bytelm.exact.tokenizers.cursor import Cursor, Node, Nodes
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie, Range


@dataclass(frozen=True, slots=True)
class _Match:
    """A token that starts after `node` and is one of a range, as far as `depth` bytes tell."""

    node: Node
    token_range: Range
    depth: int


class GreedyCursor(Cursor):
    """Immutable. matches: each starts where the longest token so far of the one before ends; that
    of the last one, if it has read nothing, ends here."""

    __slots__ = ("trie", "matches", "last")

    def __init__(self, trie: PrefixTrie, matches: tuple[_Match, ...], last: Node):
        self.trie, self.matches, self.last = trie, matches, last

    @classmethod
    def of(cls, base: Node, trie: PrefixTrie) -> GreedyCursor:
        """The cursor before a text."""
        return cls(trie, (_Match(base, trie.everything, 0),), base)

    def push(self, byte: int) -> GreedyCursor:
        matches: list[_Match] = []
        for match in self.matches:
            token_range = self.trie.narrow(match.token_range, match.depth, byte)
            if token_range[0] == token_range[1]:
                continue
            depth = match.depth + 1
            matches.append(_Match(match.node, token_range, depth))
            if self.trie.is_exact(token_range[0], depth):
                node = match.node.child(int(self.trie.order[token_range[0]]))
                matches.append(_Match(node, self.trie.everything, 0))
                break
        return GreedyCursor(self.trie, tuple(matches), matches[0].node if matches else self.last)

    def here(self) -> Nodes:
        at_end = [match.node for match in self.matches[-1:] if match.depth == 0]
        return tuple(at_end)

    def settled(self) -> Node:
        return self.last

    def key(self, node: Node) -> Hashable:
        return tuple((match.token_range, match.depth) for match in self.matches)
