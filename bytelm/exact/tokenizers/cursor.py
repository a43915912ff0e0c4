"""Canonical encodings of a text that grows byte by byte, at constant cost per byte.

A `Cursor` stands at the end of the text so far and knows the nodes of the token prefixes that end
there and which some continuation of the text has. It is immutable: `push` gives the cursor one byte
further, in time and memory that do not depend on the length of the text. Nodes are the caller's:
`TokenPrefix`es of the model's tree, or `TokenString`s.

`WindowCursor` serves the encoders that are functions of a whole text: it encodes a window of text
at each byte, which starts where the encoder may restart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bytelm.exact.tokenizers.prefix_trie import PrefixTrie, Range

Node = Any  # a `TokenNode`
Nodes = tuple[Node | None, ...]
_WINDOW = 4  # longest tokens: a shorter window costs little to keep, and breaks fewer ties anew


class Cursor(ABC):
    """The end of a growing text, for one encoder."""

    @abstractmethod
    def push(self, byte: int) -> Cursor:
        """The cursor after one more byte."""

    @abstractmethod
    def here(self) -> Nodes:
        """The nodes of the token prefixes that end here. After the first the text may end; it is
        None if the text as it stands has no encoding that ends here. Empty if the tokenizer cannot
        write the text."""

    @abstractmethod
    def settled(self) -> Node:
        """A node that all encodings of all continuations have in common, not far behind."""

    @abstractmethod
    def key(self, node: Node) -> Hashable:
        """All that decides which tokens may follow `node`, which is one of those here."""


class _Encodes(Protocol):
    """What a window needs of its encoder."""

    def prefixes(self, window: bytes) -> tuple[tuple[int, ...] | None, ...]: ...

    def restart(self, window: bytes, settled: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Open:
    """A token prefix from which some token still reaches beyond the end."""

    node: Node
    token_range: Range
    depth: int


class WindowCursor(Cursor):
    """The cursor of an encoder that is a function of the bytes since a point of restart."""

    __slots__ = ("encoder", "trie", "anchor", "window", "open", "_here")

    def __init__(
        self,
        encoder: _Encodes,
        trie: PrefixTrie,
        anchor: Node,
        window: bytes = b"",
        open: tuple[_Open, ...] = (),
    ):
        self.encoder, self.trie, self.anchor = encoder, trie, anchor
        self.window, self.open = window, open
        self._here: Nodes | None = None

    def here(self) -> Nodes:
        if self._here is None:
            self._here = tuple(
                None if tokens is None else _descend(self.anchor, tokens)
                for tokens in self.encoder.prefixes(self.window)
            )
        return self._here

    def settled(self) -> Node:
        return self.anchor

    def key(self, node: Node) -> Hashable:
        tokens = []
        at = node
        while at is not self.anchor:
            tokens.append(at.token)
            at = at.parent
        return self.window, tuple(tokens)

    def push(self, byte: int) -> WindowCursor:
        still_open = []
        fresh = (_Open(node, self.trie.everything, 0) for node in self.here() if node is not None)
        for each in (*self.open, *fresh):
            token_range = self.trie.narrow(each.token_range, each.depth, byte)
            if token_range[0] < token_range[1]:
                still_open.append(_Open(each.node, token_range, each.depth + 1))
        window = self.window + bytes([byte])
        moved = WindowCursor(self.encoder, self.trie, self.anchor, window, tuple(still_open))
        return moved._advance()

    def _advance(self) -> WindowCursor:
        """Move the anchor forward where the encoder allows."""
        start = self.anchor.end
        shared = self.anchor
        if len(self.window) >= _WINDOW * self.trie.longest:
            ends = [node for node in self.here() if node is not None]
            shared = common_beginning([*(each.node for each in self.open), *ends]) or self.anchor
        at = self.encoder.restart(self.window, max(shared.end - start, 0))
        if at <= 0:
            return self
        if at == shared.end - start:
            anchor = shared
        else:
            tokens = self.encoder.prefixes(self.window[:at])
            if not tokens or tokens[0] is None:
                return self
            anchor = _descend(self.anchor, tokens[0])
        return WindowCursor(self.encoder, self.trie, anchor, self.window[at:], self.open)


def _descend(node: Node, tokens: Iterable[int]) -> Node:
    for token in tokens:
        node = node.child(token)
    return node


def common_beginning(nodes: Sequence[Node]) -> Node | None:
    """The longest token prefix that all of these nodes start with; None for none."""
    if not nodes:
        return None
    shared = nodes[0]
    for other in nodes[1:]:
        while shared is not other:
            assert other is not None and shared is not None, "prefixes of one tree share its root"
            if shared.end > other.end:
                shared = shared.parent
            elif other.end > shared.end:
                other = other.parent
            else:  # special tokens have no bytes: step both
                shared, other = shared.parent, other.parent
    return shared
