"""The canonical token prefixes at the end of a text, from the tokenizer alone: the model is not
asked.

A `CanonicalFrontier` stands at the end of the text so far. It knows a token prefix not far behind
that every canonical encoding of the text has in common (the anchor), the bytes since (the window),
and the token prefixes from which some token still reaches beyond the end (the open ones). With it
the converter evaluates a known text in one forward pass: the frontiers of all beginnings of the
text are walked first, and their token prefixes asked for together.
"""

from __future__ import annotations

from dataclasses import dataclass

from bytelm.exact.token_tree import TokenPrefix
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.prefix_trie import Range


@dataclass(frozen=True, slots=True)
class _Open:
    prefix: TokenPrefix
    token_range: Range
    depth: int


class CanonicalFrontier:
    """The canonical token prefixes at the end of one text. Immutable; `push` gives the next one."""

    __slots__ = ("encoder", "anchor", "window", "open", "_here")

    def __init__(
        self,
        encoder: Encoder,
        anchor: TokenPrefix,
        window: bytes = b"",
        open: tuple[_Open, ...] = (),
    ):
        self.encoder = encoder
        self.anchor = anchor
        self.window = window
        self.open = open
        self._here: tuple[tuple[TokenPrefix, bool], ...] | None = None

    def here(self) -> tuple[tuple[TokenPrefix, bool], ...]:
        """The token prefixes that end exactly here, and whether the text may end after each."""
        if self._here is None:
            found = enumerate(self.encoder.prefixes(self.window))
            self._here = tuple(
                (self.anchor.descend(tokens), i == 0) for i, tokens in found if tokens is not None
            )
        return self._here

    def push(self, byte: int) -> CanonicalFrontier:
        """The frontier one byte further."""
        trie = self.anchor.tree.trie
        still_open = []
        fresh = (_Open(prefix, trie.everything, 0) for prefix, _ in self.here())
        for each in (*self.open, *fresh):
            token_range = trie.narrow(each.token_range, each.depth, byte)
            if token_range[0] < token_range[1]:
                still_open.append(_Open(each.prefix, token_range, each.depth + 1))
        window = self.window + bytes([byte])
        return CanonicalFrontier(self.encoder, self.anchor, window, tuple(still_open))._advance()

    def _advance(self) -> CanonicalFrontier:
        """Move the anchor forward where the encoder allows."""
        start = self.anchor.end
        shared = _common([each.prefix for each in self.open]) or self.anchor
        at = self.encoder.restart(self.window, max(shared.end - start, 0))
        if at <= 0:
            return self
        if at == shared.end - start:
            anchor = shared
        else:
            tokens = self.encoder.prefixes(self.window[:at])
            if not tokens or tokens[0] is None:
                return self
            anchor = self.anchor.descend(tokens[0])
        return CanonicalFrontier(self.encoder, anchor, self.window[at:], self.open)


def _common(prefixes: list[TokenPrefix]) -> TokenPrefix | None:
    """The longest token prefix that all of these start with; None for none."""
    if not prefixes:
        return None
    shared = prefixes[0]
    for prefix in prefixes[1:]:
        other: TokenPrefix | None = prefix
        while shared is not other:
            assert other is not None and shared is not None, "prefixes of one tree share its root"
            if shared.end > other.end:
                shared = shared.parent  # type: ignore[assignment]
            elif other.end > shared.end:
                other = other.parent
            else:  # special tokens have no bytes: step both
                shared, other = shared.parent, other.parent  # type: ignore[assignment]
    return shared
