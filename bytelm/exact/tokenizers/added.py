"""Added tokens that are ordinary text (the runs of blanks of GPT-NeoX): `AddedTextEncoder`.

A tokenizer looks for its added tokens before anything else: the leftmost occurrence, of those that
start there the longest. What lies between two of them is encoded as a text of its own, so its
pre-tokenizer sees an end of text there. That wraps any other encoder.

What a text so far is cut into does not depend on what follows, as far as a token ends at its end:
an added token that would begin in the text and reach beyond it leaves no boundary there, and any
other one is found in the text alone. So the token prefixes are those of the text since the last
added token, less those that only a continuation would have that begins an added token too early.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import product

from bytelm.exact.tokenizers.added_cursor import AddedCursor
from bytelm.exact.tokenizers.cursor import Cursor, Node
from bytelm.exact.tokenizers.encoders import Encoder, Prefixes, Tokens
from bytelm.exact.tokenizers.lookahead import completions, decode
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie

# What may follow where an added token may have begun: characters of every class that expressions
# tell apart, several of the classes that added tokens are made of, alone and with a second one.
_FIRST = tuple("a0.'_é\u0301\u4e00 \t\n\r\u00a0\u3000") + ("\r\n", "s", "Z", "1", "-", "(")
_SECOND = ("", "a", "0", ".", " ", "\n", "\t")


class AddedTextEncoder(Encoder):
    """`inner` behind a search for added tokens.

    added: their bytes -> ids.
    """

    def __init__(self, inner: Encoder, added: Mapping[bytes, int]):
        self.inner = inner
        self.added = dict(added)
        longest_first = sorted(added, key=len, reverse=True)
        self.search = re.compile(b"|".join(map(re.escape, longest_first)))
        self._longest = len(longest_first[0])
        self._single = any(len(data.decode()) == 1 for data in added)
        self._continued = lru_cache(maxsize=1 << 12)(self._find_continued)
        self._beginnings = {data[:n] for data in added for n in range(1, len(data))}

    def encode(self, data: bytes) -> list[int]:
        ids: list[int] = []
        for between, token in self._parts(data):
            ids += self.inner.encode(between) if between else []
            ids += [] if token is None else [token]
        return ids

    def prefixes(self, window: bytes) -> Prefixes:
        head: list[int] = []
        *before, (last, _) = self._parts(window)
        for between, token in before:
            found = self.inner.prefixes(between) if between else ((),)
            if not found or found[0] is None:
                return ()
            head += found[0]
            head += [] if token is None else [token]
        found = self.inner.prefixes(last)
        if len(found) > 1 and self.may_be_too_early(last):
            possible = self._continued(last, found)
            found = (found[0], *(tokens for tokens in found[1:] if tokens in possible))
        return tuple(None if tokens is None else (*head, *tokens) for tokens in found)

    def begin(self, base: Node, trie: PrefixTrie) -> Cursor:
        return AddedCursor(self, trie, base, self.inner.begin(base, trie))

    def restart(self, window: bytes, settled: int) -> int:
        opened = self.may_begin(window)
        start = 0
        for match in self.search.finditer(window):
            if match.start() >= opened:
                break
            start = match.end()
        if start >= opened:
            return start
        return start + self.inner.restart(
            window[start:opened], max(0, min(settled, opened) - start)
        )

    def _parts(self, data: bytes) -> Iterator[tuple[bytes, int | None]]:
        """What stands before each added token, and the token; last, what follows them all."""
        end = 0
        for match in self.search.finditer(data):
            yield data[end : match.start()], self.added[match[0]]
            end = match.end()
        yield data[end:], None

    def may_begin(self, data: bytes) -> int:
        """Where the first added token may begin that is not all there yet; the end for none."""
        nearest = range(max(0, len(data) - self._longest + 1), len(data))
        return next((at for at in nearest if data[at:] in self._beginnings), len(data))

    def may_be_too_early(self, text: bytes) -> bool:
        """Whether a continuation may begin an added token inside the text, or right after it."""
        return self._single or self.may_begin(text) < len(text)

    def continuations(self, text: bytes, rest: bytes) -> Iterator[bytes]:
        """Bytes that may follow `text` without an added token that begins in it, up to the first
        one that they begin themselves. rest: the end of the text, where one may begin."""
        for after in _continuations(text):
            match = self.search.search(rest + after)
            if match is None:
                yield after
            elif match.start() >= len(rest):
                yield after[: match.start() - len(rest)]

    def _find_continued(self, text: bytes, candidates: Prefixes) -> set[Tokens]:
        """Those of the token prefixes of `text` that it has before some continuation with which no
        added token begins inside of it."""
        found: set[Tokens] = set()
        for after in self.continuations(text, text):
            if len(found) == len(candidates):
                break
            try:
                ids = tuple(self.inner.encode(text + after))
            except (KeyError, ValueError):  # a vocabulary that cannot write this continuation
                continue
            found.update(t for t in candidates if t is not None and ids[: len(t)] == t)
        return found


def behind_added(encoder: Encoder, groups: Iterable[Mapping[bytes, int]]) -> Encoder:
    """The encoder behind the searches for groups of added tokens (bytes -> ids), first to last."""
    for group in reversed([group for group in groups if group]):
        encoder = AddedTextEncoder(encoder, group)
    return encoder


def _continuations(text: bytes) -> list[bytes]:
    """Bytes that may follow; those that complete a character which the text ends inside of."""
    tail = decode(text)[2]
    if tail:
        return [after.encode()[len(tail) :] for after in completions(tail)]
    return [(a + b).encode() for a, b in product(_FIRST, _SECOND)]
