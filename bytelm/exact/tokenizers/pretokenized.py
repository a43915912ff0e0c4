"""Byte-pair merges behind a regular expression (GPT-2, Llama 3, Qwen): `PretokenizedBPE`.

The expression is the tokenizer's own. It looks ahead, so the text so far is cut once for each
lookahead probe; inside a piece every prefix of an encoding is an encoding.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers import Regex, pre_tokenizers

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import Encoder, Prefixes, Spans, Tokens
from bytelm.exact.tokenizers.lookahead import completions, decode, lookahead_probes

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
        self._cached = lru_cache(maxsize=1 << 16)(self._prefixes)

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
        found = self.prefixes(data)
        if not found or found[0] is None:
            raise BytelmError(f"the tokenizer cannot encode {data!r}: a byte of it has no token")
        return list(found[0])

    def prefixes(self, window: bytes) -> Prefixes:
        return self._cached(window)

    def _prefixes(self, window: bytes) -> Prefixes:
        text, lengths, tail = decode(window)
        found: dict[Tokens, None] = {}
        for after in completions(tail) if tail else lookahead_probes(text):
            tokens = self._tokens(window, text + after, lengths, tail)
            if tokens is not None:
                found[tokens] = None
        return tuple(found)

    def _tokens(self, window: bytes, text: str, lengths: list[int], tail: bytes) -> Tokens | None:
        """Tokens of `window` when `text` (its characters and a probe) is cut into pieces."""
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


def expression_spans(*expressions: str) -> Spans:
    """A pre-tokenizer that cuts by regular expressions, one after the other; a piece is a match or
    what lies between two matches.

    >>> expression_spans(r" ?\\w+|\\s+")("two words")
    [(0, 3), (3, 9)]
    """
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions]
    )
    return lambda text: [span for _, span in cut.pre_tokenize_str(text)]
