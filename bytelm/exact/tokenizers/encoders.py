"""Canonical encodings of a text that is still growing: the trunks at its end.

An `Encoder` answers two questions about the bytes since a point where encoding may restart. Which
token strings spell them and are what the tokenizer writes before this cut for some continuation
(`trunks`; three at most in practice)? And up to where is the encoding settled (`restart`), so that
the window stays short? The families differ in both:

- byte-pair merges behind a regular expression: the expression is the tokenizer's own, tried with
  the witnesses of `lookahead.py`; inside a piece every prefix of an encoding is an encoding.
- character tokenizers with byte fallback (SentencePiece), greedy longest match, and byte-pair
  merges without an expression: the encoding of a prefix is a prefix of the encoding, so there is
  one trunk a cut, and what all live trunks share is settled.
- anybody's `encode` function: tried with the witnesses, over the whole text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.lookahead import PLACEHOLDER, completions, decode, witnesses
from bytelm.exact.tokenizers.vocabulary import VocabularyIndex

Tokens = tuple[int, ...]
Trunks = tuple[Tokens | None, ...]
Spans = Callable[[str], list[tuple[int, int]]]


class Encoder(ABC):
    """The canonical encoding of a growing text."""

    @abstractmethod
    def encode(self, data: bytes) -> list[int]:
        """The tokenizer's encoding of `data` as a whole text, without BOS or a dummy blank."""

    @abstractmethod
    def trunks(self, window: bytes) -> Trunks:
        """Token strings that spell exactly `window` and that some text which starts with it has.
        The first is `encode(window)`, the only one after which the text may end, or None if that
        does not spell the window. Empty if the tokenizer cannot write these bytes."""

    @abstractmethod
    def restart(self, window: bytes, settled: int) -> int:
        """r such that encode(window + y) = encode(window[:r]) + encode(window[r:] + y) for all y.

        settled: the number of bytes that all trunks which can still grow share.
        """


# Cuts that common pre-tokenizers always make, whatever stands further left or right: before a
# blank and a letter, between letters and digits, after a letter before a line end, and between
# letters and full-width punctuation. Each is used only with a tokenizer that passes `_PROBES`.
_CUTS = (
    r"(?<=\S)(?= [^\W\d_])",
    r"(?<=[A-Za-z])(?=[0-9])",
    r"(?<=[0-9])(?=[A-Za-z])",
    r"(?<=[A-Za-z])(?=\n)",
    r"(?<=[^\W\d_])(?=[，。、！？：；」』）])",
)
_PROBES = (
    "ab cd", "a. bc", "a, b", "it's we", "x) (y z", "a\n b", "1 a", "é à", "ab12cd", "a1b22c333d",
    "v2.0a", "HTMLParser2x", "a\n\nb", "word\n", "x1\n y\n", "a\n  b", "你好，世界。再见", "カ。ナ",
    "don't go1",
    "a  b c", "12 ab", "_a1 b2_", "#1a b", "\t a b", "-- a", "“a” b", "a'1b", "a\n\n\n b", "a\n. b",
)  # fmt: skip


class PretokenizedBPE(Encoder):
    """Byte-pair merges inside the pieces of a pre-tokenizer.

    spans: text -> (start, end) of the pieces in characters; they must tile the text.
    whole: ids of pieces that are one token whatever the merges say (`ignore_merges`).
    """

    def __init__(self, pairs: BytePairs, spans: Spans, *, whole: dict[bytes, int] | None = None):
        self.pairs = pairs
        self.spans = spans
        self.whole = whole or {}
        self._check_tiling()
        kept = [cut for cut in _CUTS if self._holds(cut)]
        self._cut = re.compile("|".join(kept)) if kept else None
        self.trunks = lru_cache(maxsize=1 << 16)(self._trunks)  # type: ignore[method-assign]

    def _check_tiling(self) -> None:
        for text in _PROBES:
            edges = [0, *(end for _, end in self.spans(text))]
            if edges[:-1] != [start for start, _ in self.spans(text)] or edges[-1] != len(text):
                raise BytelmError(
                    f"the pre-tokenizer drops characters (of {text!r}): its encodings do not "
                    'spell the text, so there is nothing canonical to score; use mode="all"'
                )

    def _holds(self, cut: str) -> bool:
        """Whether the pre-tokenizer makes this cut in every probe, and restarts there."""
        for text in _PROBES:
            for match in re.finditer(cut, text):
                at = match.start()
                left, right = self.spans(text[:at]), self.spans(text[at:])
                if self.spans(text) != left + [(at + a, at + b) for a, b in right]:
                    return False
        return True

    def encode(self, data: bytes) -> list[int]:
        found = self.trunks(data)
        if not found or found[0] is None:
            raise BytelmError(f"the tokenizer cannot encode {data!r}: a byte of it has no token")
        return list(found[0])

    def trunks(self, window: bytes) -> Trunks:
        raise AssertionError("replaced by a cached version in the constructor")

    def _trunks(self, window: bytes) -> Trunks:
        text, lengths, tail = decode(window)
        found: dict[Tokens, None] = {}
        for after in completions(tail) if tail else witnesses(text):
            tokens = self._tokens(window, text + after, lengths, tail)
            if tokens is not None:
                found[tokens] = None
        return tuple(found)

    def _tokens(self, window: bytes, text: str, lengths: list[int], tail: bytes) -> Tokens | None:
        """Tokens of `window` when `text` (its characters and a witness) is cut into pieces."""
        complete = len(lengths)  # characters; one that has only begun cannot end a piece
        lengths = [*lengths, len(tail)] if tail else lengths
        place = [0]
        for length in lengths:
            place.append(place[-1] + length)
        tokens: list[int] = []
        for start, end in self.spans(text):
            if start >= len(lengths):
                break
            piece = window[place[start] : place[min(end, len(lengths))]]
            if piece in self.whole and end <= complete:
                tokens.append(self.whole[piece])
                continue
            ids = self.pairs.encode(piece)
            if ids is None:
                return None
            tokens.extend(ids)
        return tuple(tokens)

    def restart(self, window: bytes, settled: int) -> int:
        if self._cut is None:
            return 0
        text, lengths, _ = decode(window)
        found = 0
        for match in self._cut.finditer(text):
            found = match.start()
        return sum(lengths[:found])


class CharacterEncoder(Encoder):
    """A tokenizer over characters with byte fallback (SentencePiece BPE and Unigram).

    encode_text: the ids of a well-formed string without any normalisation or dummy blank.
    byte_ids: the id of each single byte (`<0x00>` ...), for what has no piece and for bytes that
    are no UTF-8. A literal U+2581, which such tokenizers cannot tell from a blank, is written in
    bytes as well, so that every text keeps an encoding.
    """

    def __init__(self, encode_text: Callable[[str], list[int]], byte_ids: dict[int, int]):
        self.encode_text = encode_text
        self.byte_ids = byte_ids

    def encode(self, data: bytes) -> list[int]:
        text, lengths, tail = decode(data)
        ids: list[int] = []
        at = 0
        for part in re.split(f"({_BLANK}|{PLACEHOLDER})", text):
            end = at + len(part)
            size = sum(lengths[at:end])
            start = sum(lengths[:at])
            at = end
            if part in (_BLANK, PLACEHOLDER):
                ids.extend(self.byte_ids[byte] for byte in data[start : start + size])
            elif part:
                ids.extend(self.encode_text(part))
        return ids + [self.byte_ids[byte] for byte in tail]

    def trunks(self, window: bytes) -> Trunks:
        try:
            return (tuple(self.encode(window)),)
        except KeyError:  # a byte without a token: no encoding spells this text
            return ()

    def restart(self, window: bytes, settled: int) -> int:
        return settled if _starts_character(window, settled) else 0


_BLANK = "\u2581"


def _starts_character(data: bytes, at: int) -> bool:
    return at >= len(data) or data[at] & 0xC0 != 0x80


class GreedyEncoder(Encoder):
    """Greedy longest match (RWKV): always the longest token that the rest starts with."""

    def __init__(self, index: VocabularyIndex):
        self.index = index

    def encode(self, data: bytes) -> list[int]:
        ids = []
        while data:
            token = self._longest(data)
            if token is None:
                raise BytelmError(f"the tokenizer cannot encode the byte {data[:1]!r}")
            ids.append(token)
            data = data[len(self.index.vocab_bytes[token]) :]  # type: ignore[arg-type]
        return ids

    def _longest(self, data: bytes) -> int | None:
        places, found = self.index.everything, None
        for depth, byte in enumerate(data[: self.index.longest]):
            places = self.index.narrow(places, depth, byte)
            if places[0] == places[1]:
                break
            exact = self.index.exact(places, depth + 1)
            found = int(exact[0]) if len(exact) else found
        return found

    def trunks(self, window: bytes) -> Trunks:
        try:
            return (tuple(self.encode(window)),)
        except BytelmError:
            return ()

    def restart(self, window: bytes, settled: int) -> int:
        return settled


class PlainBPE(Encoder):
    """Byte-pair merges over the whole text, with no pre-tokenizer (Binary BPE)."""

    def __init__(self, pairs: BytePairs):
        self.pairs = pairs

    def encode(self, data: bytes) -> list[int]:
        found = self.pairs.encode(data)
        if found is None:
            raise BytelmError(f"the tokenizer cannot encode {data!r}: a byte of it has no token")
        return list(found)

    def trunks(self, window: bytes) -> Trunks:
        found = self.pairs.encode(window)
        return () if found is None else (found,)

    def restart(self, window: bytes, settled: int) -> int:
        return settled


class CallableEncoder(Encoder):
    """Anybody's `encode(bytes) -> ids`, tried with the witnesses over the whole text.

    prefix_closed: promise that the encoding of a prefix is always a prefix of the encoding (greedy
    match, Unigram, merges without a regular expression) and may be restarted at any token; then no
    witness is needed and the text is not encoded from its start at every byte.
    """

    def __init__(
        self,
        encode: Callable[[bytes], Sequence[int]],
        vocab_bytes: Sequence[bytes | None],
        *,
        prefix_closed: bool = False,
    ):
        self._function = encode
        self.vocab_bytes = vocab_bytes
        self.prefix_closed = prefix_closed

    def encode(self, data: bytes) -> list[int]:
        return [int(token) for token in self._function(data)]

    def trunks(self, window: bytes) -> Trunks:
        first = self._spelling(self.encode(window), window)
        found: dict[Tokens | None, None] = {first: None}
        if not self.prefix_closed:
            text, _, tail = decode(window)
            for after in self._continuations(text, tail):
                try:
                    tokens = self._spelling(self.encode(window + after), window)
                except ValueError:  # a vocabulary that cannot write this continuation
                    continue
                if tokens is not None:
                    found[tokens] = None
        return tuple(found)

    def _continuations(self, text: str, tail: bytes) -> list[bytes]:
        if tail:
            return [after.encode()[len(tail) :] for after in completions(tail)]
        return [after.encode() for after in witnesses(text)[1:]]

    def _spelling(self, ids: Sequence[int], window: bytes) -> Tokens | None:
        """The first tokens that spell exactly `window`; None if no boundary is at its end."""
        end = 0
        for count, token in enumerate(ids):
            if end >= len(window):
                return tuple(ids[:count]) if end == len(window) else None
            data = self.vocab_bytes[token]
            if data is None or not window.startswith(data[: len(window) - end], end):
                return None
            end += len(data)
        return tuple(ids) if end == len(window) else None

    def restart(self, window: bytes, settled: int) -> int:
        return settled if self.prefix_closed else 0
