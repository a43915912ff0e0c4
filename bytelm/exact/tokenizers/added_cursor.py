"""The cursor of a text in which added tokens are looked for (`added.py`), at constant cost per
byte.

It keeps the bytes from where an added token may have begun that is not all there yet: at most as
many as the longest one has. What stands before them is settled, and is known to the cursor of the
tokenizer behind the search, which begins anew after each added token.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from bytelm.exact.tokenizers.cursor import Cursor, Node, Nodes
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

if TYPE_CHECKING:
    from bytelm.exact.tokenizers.added import AddedTextEncoder

_CHARACTER = 3  # bytes of an incomplete character, at most


class AddedCursor(Cursor):
    """`inner` stands before the `tail`; `recent` are the last bytes before it, up to the last added
    token. `base` is the node after that token, for a text that cannot be written."""

    __slots__ = ("encoder", "trie", "base", "inner", "tail", "recent", "_end")

    def __init__(
        self,
        encoder: AddedTextEncoder,
        trie: PrefixTrie,
        base: Node,
        inner: Cursor | None,
        tail: bytes = b"",
        recent: bytes = b"",
    ):
        self.encoder, self.trie, self.base = encoder, trie, base
        self.inner, self.tail, self.recent = inner, tail, recent
        self._end: tuple[Cursor | None, Nodes] | None = None

    def push(self, byte: int) -> AddedCursor:
        tail, recent = self.tail + bytes([byte]), self.recent
        base, inner = self.base, self.inner
        opened = self.encoder.may_begin(tail)
        while (match := self.encoder.search.search(tail)) and match.start() < opened:
            base, inner = self._after(base, inner, tail[: match.start()], match[0])
            tail, recent = tail[match.end() :], b""
            opened = self.encoder.may_begin(tail)
        recent = (recent + tail[:opened])[-_CHARACTER:]
        inner = _pushed(inner, tail[:opened])
        return AddedCursor(self.encoder, self.trie, base, inner, tail[opened:], recent)

    def here(self) -> Nodes:
        return self._last()[1]

    def settled(self) -> Node:
        return self.base if self.inner is None else self.inner.settled()

    def key(self, node: Node) -> Hashable:
        inner = self._last()[0]
        assert inner is not None, "a node that is here"
        return inner.key(node), self.tail, self.recent

    def _last(self) -> tuple[Cursor | None, Nodes]:
        """The cursor of what follows the last added token, if the text ended here, and `here`."""
        if self._end is None:
            base, inner, end = self.base, self.inner, 0
            for match in self.encoder.search.finditer(self.tail):
                base, inner = self._after(base, inner, self.tail[end : match.start()], match[0])
                end = match.end()
            rest = self.tail[end:]
            recent = b"" if end else self.recent
            inner = _pushed(inner, rest)
            nodes = () if inner is None else inner.here()
            if inner is not None and len(nodes) > 1 and self.encoder.may_be_too_early(rest):
                possible = set(self._possible(inner, recent, rest, nodes))
                nodes = (nodes[0], *(node for node in nodes[1:] if node in possible))
            self._end = inner, nodes
        return self._end

    def _after(
        self, base: Node, inner: Cursor | None, between: bytes, added: bytes
    ) -> tuple[Node, Cursor | None]:
        """The node after some bytes and an added token, and a cursor that begins there; None for a
        text that cannot be written."""
        inner = _pushed(inner, between)
        nodes = () if inner is None else inner.here()
        if not nodes or nodes[0] is None:
            return base, None
        node = nodes[0].child(self.encoder.added[added])
        return node, self.encoder.inner.begin(node, self.trie)

    def _possible(self, inner: Cursor, recent: bytes, rest: bytes, nodes: Nodes) -> Iterator[Node]:
        """Those of the nodes here that some continuation has with which no added token begins in
        what there is."""
        wanted = {node for node in nodes[1:] if node is not None}
        for after in self.encoder.continuations(recent + rest, rest):
            if not wanted:
                return
            ends = _pushed_nodes(inner, after)
            node = ends[0] if ends else None
            while node is not None and node not in wanted and node.parent is not None:
                node = node.parent
            if node in wanted:
                wanted.discard(node)
                yield node


def _pushed(inner: Cursor | None, data: bytes) -> Cursor | None:
    for byte in data:
        inner = None if inner is None else inner.push(byte)
    return inner


def _pushed_nodes(inner: Cursor, data: bytes) -> Nodes:
    for byte in data:
        inner = inner.push(byte)
    return inner.here()
