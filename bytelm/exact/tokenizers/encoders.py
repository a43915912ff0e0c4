"""Canonical encodings of a text that is still growing: the token prefixes at its end.

An `Encoder` answers two questions about the bytes since a point where encoding may restart. Which
token strings spell them and are what the tokenizer writes before this cut for some continuation
(`prefixes`; three at most in practice)? And up to where is the encoding settled (`restart`), so
that the window stays short? The families differ in both:

- byte-pair merges behind a regular expression (`pretokenized.py`): the expression is the
  tokenizer's own, tried with the lookahead probes of `lookahead.py`.
- character tokenizers with byte fallback (SentencePiece), greedy longest match, and byte-pair
  merges without an expression: the encoding of a prefix is a prefix of the encoding, so there is
  one token prefix per cut, and what all open ones share is settled.
- anybody's `encode` function: tried with the lookahead probes, over the whole text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.cursor import Cursor, Node, WindowCursor
from bytelm.exact.tokenizers.greedy import GreedyCursor
from bytelm.exact.tokenizers.lookahead import PLACEHOLDER, completions, decode, lookahead_probes
from bytelm.exact.tokenizers.piece_cursor import PairsCursor, PieceEncoding
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

Tokens = tuple[int, ...]
Prefixes = tuple[Tokens | None, ...]


class Encoder(ABC):
    """The canonical encoding of a growing text.

    `encode` raises `BytelmError` or `KeyError` for bytes that the tokenizer cannot write.
    """

    @abstractmethod
    def encode(self, data: bytes) -> list[int]:
        """The tokenizer's encoding of `data` as a whole text, without BOS or a dummy blank."""

    @abstractmethod
    def prefixes(self, window: bytes) -> Prefixes:
        """Token strings that spell exactly `window` and that some text which starts with it has.
        The first is `encode(window)`, the only one after which the text may end, or None if that
        does not spell the window. Empty if the tokenizer cannot write these bytes."""

    @abstractmethod
    def restart(self, window: bytes, settled: int) -> int:
        """r such that encode(window + y) = encode(window[:r]) + encode(window[r:] + y) for all y.

        settled: the number of bytes spelled by the tokens that all open token prefixes share.
        """

    def begin(self, base: Node, trie: PrefixTrie) -> Cursor:
        """The cursor of a text that starts after `base`. trie: that of the vocabulary."""
        return WindowCursor(self, trie, base)


class CharacterEncoder(Encoder):
    """A tokenizer over characters with byte fallback (SentencePiece BPE and Unigram).

    encode_text: the ids of a well-formed string without any normalisation or dummy blank.
    byte_ids: the id of each single byte (`<0x00>` ...), for what has no piece and for bytes that
    are no UTF-8 (U+FFFD itself is a character as any other). A literal U+2581, which such
    tokenizers cannot tell from a blank, is written in bytes as well, so that every text keeps an
    encoding.
    """

    def __init__(self, encode_text: Callable[[str], list[int]], byte_ids: dict[int, int]):
        self.encode_text = encode_text
        self.byte_ids = byte_ids

    def encode(self, data: bytes) -> list[int]:
        text, lengths, tail = decode(data)
        ids: list[int] = []
        at = start = 0  # in characters, in bytes
        for match in _IN_BYTES.finditer(text):
            here = match.start()
            if text[here] == PLACEHOLDER and lengths[here] > 1:  # the character, not a bad byte
                continue
            ids += self.encode_text(text[at:here]) if at < here else []
            start += sum(lengths[at:here])
            ids += [self.byte_ids[byte] for byte in data[start : start + lengths[here]]]
            at, start = here + 1, start + lengths[here]
        ids += self.encode_text(text[at:]) if at < len(text) else []
        return ids + [self.byte_ids[byte] for byte in tail]

    def prefixes(self, window: bytes) -> Prefixes:
        try:
            return (tuple(self.encode(window)),)
        except KeyError:  # a byte without a token: no encoding spells this text
            return ()

    def restart(self, window: bytes, settled: int) -> int:
        return settled if _starts_character(window, settled) else 0


_IN_BYTES = re.compile(f"\u2581|{PLACEHOLDER}")


def _starts_character(data: bytes, at: int) -> bool:
    return at >= len(data) or data[at] & 0xC0 != 0x80


class GreedyEncoder(Encoder):
    """Greedy longest match (RWKV): always the longest token that the rest starts with."""

    def __init__(self, trie: PrefixTrie):
        self.trie = trie

    def encode(self, data: bytes) -> list[int]:
        ids = []
        while data:
            token = self._longest(data)
            if token is None:
                raise BytelmError(f"the tokenizer cannot encode the byte {data[:1]!r}")
            ids.append(token)
            data = data[len(self.trie.vocab_bytes[token]) :]  # type: ignore[arg-type]
        return ids

    def _longest(self, data: bytes) -> int | None:
        token_range, found = self.trie.everything, None
        for depth, byte in enumerate(data[: self.trie.longest]):
            token_range = self.trie.narrow(token_range, depth, byte)
            if token_range[0] == token_range[1]:
                break
            exact = self.trie.exact(token_range, depth + 1)
            found = int(exact[0]) if len(exact) else found
        return found

    def prefixes(self, window: bytes) -> Prefixes:
        try:
            return (tuple(self.encode(window)),)
        except BytelmError:
            return ()

    def restart(self, window: bytes, settled: int) -> int:
        return settled

    def begin(self, base: Node, trie: PrefixTrie) -> Cursor:
        return GreedyCursor.of(base, trie)


class PlainBPE(Encoder):
    """Byte-pair merges over the whole text, with no pre-tokenizer (Binary BPE)."""

    def __init__(self, pairs: BytePairs):
        self.pairs = pairs

    def encode(self, data: bytes) -> list[int]:
        found = self.pairs.encode(data)
        if found is None:
            raise BytelmError(f"the tokenizer cannot encode {data!r}: a byte of it has no token")
        return list(found)

    def prefixes(self, window: bytes) -> Prefixes:
        found = self.pairs.encode(window)
        return () if found is None else (found,)

    def restart(self, window: bytes, settled: int) -> int:
        return settled

    def begin(self, base: Node, trie: PrefixTrie) -> Cursor:
        return PairsCursor(PieceEncoding(self.pairs, trie, {}, base))


class CallableEncoder(Encoder):
    """Anybody's `encode(bytes) -> ids`, tried with the lookahead probes over the whole text.

    prefix_closed: promise that the encoding of a prefix is always a prefix of the encoding (greedy
    match, Unigram, merges without a regular expression) and may be restarted at any token; then no
    probe is needed and the text is not encoded from its start at every byte.
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

    def prefixes(self, window: bytes) -> Prefixes:
        first = self._spelling(self.encode(window), window)
        found: dict[Tokens | None, None] = {first: None}
        if not self.prefix_closed:
            text, _, tail = decode(window)
            for after in self._continuations(text, tail):
                try:
                    tokens = self._spelling(self.encode(window + after), window)
                except (KeyError, ValueError):  # a vocabulary that cannot write this continuation
                    continue
                if tokens is not None:
                    found[tokens] = None
        return tuple(found)

    def _continuations(self, text: str, tail: bytes) -> list[bytes]:
        if tail:
            return [after.encode()[len(tail) :] for after in completions(tail)]
        return [after.encode() for after in lookahead_probes(text)[1:]]

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
