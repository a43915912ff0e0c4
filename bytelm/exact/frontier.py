"""The canonical token prefixes at the end of a text, from the tokenizer alone: the model is not
asked.

A `CanonicalFrontier` is a tokenizer's `Cursor` over the nodes of a `TokenTree`. With it the
converter evaluates a known text in one forward pass: the frontiers of all beginnings of the text
are walked first, and their token prefixes asked for together.
"""

from __future__ import annotations

from bytelm.exact.token_tree import TokenPrefix
from bytelm.exact.tokenizers.cursor import Cursor
from bytelm.exact.tokenizers.encoders import Encoder


class CanonicalFrontier:
    """The canonical token prefixes at the end of one text. Immutable; `push` gives the next one.

    cursor   the tokenizer's, at the end of the text
    end      the number of bytes the token prefixes here spell, as `TokenPrefix.end`
    """

    __slots__ = ("cursor", "end", "_here")

    def __init__(self, cursor: Cursor, end: int):
        self.cursor = cursor
        self.end = end
        self._here: tuple[tuple[TokenPrefix, bool], ...] | None = None

    @classmethod
    def after(cls, encoder: Encoder, base: TokenPrefix) -> CanonicalFrontier:
        """The frontier of a text that starts after `base`."""
        return cls(encoder.begin(base, base.tree.trie), base.end)

    def here(self) -> tuple[tuple[TokenPrefix, bool], ...]:
        """The token prefixes that end exactly here, and whether the text may end after each."""
        if self._here is None:
            self._here = tuple(
                (node, i == 0) for i, node in enumerate(self.cursor.here()) if node is not None
            )
        return self._here

    def anchor(self) -> TokenPrefix:
        """A token prefix, not far behind, that every canonical encoding of the text starts with."""
        return self.cursor.settled()

    def push(self, byte: int) -> CanonicalFrontier:
        """The frontier one byte further."""
        return CanonicalFrontier(self.cursor.push(byte), self.end + 1)
