"""Which trunks a text has, found from the tokenizer alone, before the model is asked anything.

A `Skeleton` stands at the end of the text so far and knows a settled trunk not far behind it (the
anchor), the bytes since (the window), and the trunks from which some token still reaches over the
end (the live ones). It is what lets the converter evaluate a known text in one forward pass: the
skeletons of all its prefixes are walked first, and their trunks asked for together.
"""

from __future__ import annotations

from dataclasses import dataclass

from bytelm.exact.prefix_tree import Trunk
from bytelm.exact.tokenizers.encoders import Encoder
from bytelm.exact.tokenizers.vocabulary import Range


@dataclass(frozen=True, slots=True)
class _Live:
    trunk: Trunk
    places: Range
    depth: int


class Skeleton:
    """The canonical trunks at the end of one text. A value; `push` gives the next one."""

    __slots__ = ("encoder", "anchor", "window", "live", "_here")

    def __init__(
        self, encoder: Encoder, anchor: Trunk, window: bytes = b"", live: tuple[_Live, ...] = ()
    ):
        self.encoder = encoder
        self.anchor = anchor
        self.window = window
        self.live = live
        self._here: tuple[tuple[Trunk, bool], ...] | None = None

    def here(self) -> tuple[tuple[Trunk, bool], ...]:
        """The trunks that end exactly here, and whether the text may end after each."""
        if self._here is None:
            found = enumerate(self.encoder.trunks(self.window))
            self._here = tuple(
                (self.anchor.walk(tokens), i == 0) for i, tokens in found if tokens is not None
            )
        return self._here

    def push(self, byte: int) -> Skeleton:
        """The skeleton one byte further."""
        index = self.anchor.tree.index
        live = []
        fresh = (_Live(trunk, index.everything, 0) for trunk, _ in self.here())
        for branch in (*self.live, *fresh):
            places = index.narrow(branch.places, branch.depth, byte)
            if places[0] < places[1]:
                live.append(_Live(branch.trunk, places, branch.depth + 1))
        window = self.window + bytes([byte])
        return Skeleton(self.encoder, self.anchor, window, tuple(live))._settle()

    def _settle(self) -> Skeleton:
        """Move the anchor forward where the encoder allows."""
        start = self.anchor.end
        shared = _common([branch.trunk for branch in self.live]) or self.anchor
        at = self.encoder.restart(self.window, max(shared.end - start, 0))
        if at <= 0:
            return self
        if at == shared.end - start:
            anchor = shared
        else:
            tokens = self.encoder.trunks(self.window[:at])
            if not tokens or tokens[0] is None:
                return self
            anchor = self.anchor.walk(tokens[0])
        return Skeleton(self.encoder, anchor, self.window[at:], self.live)


def _common(trunks: list[Trunk]) -> Trunk | None:
    """The longest trunk that all of these start with; None for none."""
    if not trunks:
        return None
    shared = trunks[0]
    for trunk in trunks[1:]:
        other: Trunk | None = trunk
        while shared is not other:
            assert other is not None and shared is not None, "trunks of one tree share its root"
            if shared.end > other.end:
                shared = shared.parent  # type: ignore[assignment]
            elif other.end > shared.end:
                other = other.parent
            else:  # special tokens have no bytes: step both
                shared, other = shared.parent, other.parent  # type: ignore[assignment]
    return shared
