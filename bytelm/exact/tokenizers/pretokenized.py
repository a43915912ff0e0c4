"""Byte-pair merges behind regular expressions (GPT-2, Llama 3, Qwen, DeepSeek): `PretokenizedBPE`.

Where the text so far is cut can depend on what follows; the `PieceAutomaton` of the expressions
knows every way that some continuation cuts it. Inside a piece every prefix of an encoding is an
encoding.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.cursor import Cursor, Node
from bytelm.exact.tokenizers.encoders import Encoder, Prefixes, Tokens
from bytelm.exact.tokenizers.expression import parse
from bytelm.exact.tokenizers.lookahead import PLACEHOLDER, code_points, decode
from bytelm.exact.tokenizers.piece_automaton import Cuts, PieceAutomaton, Split
from bytelm.exact.tokenizers.piece_cursor import PieceCursor, PieceEncoding
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie


class PretokenizedBPE(Encoder):
    """Byte-pair merges inside the pieces of a pre-tokenizer.

    whole: ids of pieces that are one token whatever the merges say (`ignore_merges`).
    """

    def __init__(
        self, pairs: BytePairs, pieces: PieceAutomaton, *, whole: dict[bytes, int] | None = None
    ):
        self.pairs = pairs
        self.pieces = pieces
        self.whole = whole or {}
        self._cached = lru_cache(maxsize=1 << 10)(self._prefixes)

    def encode(self, data: bytes) -> list[int]:
        text, lengths, tail = decode(data)
        symbols = [*self.pieces.symbols(text), *self.pieces.symbols(PLACEHOLDER * len(tail))]
        cuts = self.pieces.cuts(symbols)
        tokens = self._tokens(data, _places(lengths + [1] * len(tail)), cuts, ends=True)
        if tokens is None:
            raise BytelmError(f"the tokenizer cannot encode {data!r}: a byte of it has no token")
        return list(tokens)

    def begin(self, base: Node, trie: PrefixTrie) -> Cursor:
        return PieceCursor.of(self.pieces, PieceEncoding(self.pairs, trie, self.whole, base))

    def prefixes(self, window: bytes) -> Prefixes:
        return self._cached(window)

    def _prefixes(self, window: bytes) -> Prefixes:
        text, lengths, tail = decode(window)
        runs = self.pieces.runs(self.pieces.symbols(text))
        found: dict[Tokens | None, None] = {}
        bad = self.pieces.runs(self.pieces.symbols(PLACEHOLDER * len(tail)), runs, len(text))
        places = _places(lengths + [1] * len(tail))
        steps = self.pieces.steps
        for last in (True, False):  # the text may end: first; or goes on
            for state, cuts in bad:
                if last and steps[state][-1]:
                    found[self._tokens(window, places, cuts, ends=True)] = None
                elif not last and self.pieces.can_cut[state]:
                    found[self._tokens(window, places, cuts, ends=True)] = None
                if not last and self.pieces.can_grow[state]:
                    found[self._tokens(window, places, cuts, ends=False)] = None
        if tail:  # a character that has only begun cannot end a piece
            places = _places([*lengths, len(tail)])
            for symbol in self.pieces.classes.within(*code_points(tail)):
                for _, cuts in self.pieces.runs([symbol], runs, len(text)):
                    found[self._tokens(window, places, cuts, ends=False)] = None
        return () if None in found else tuple(found)

    def restart(self, window: bytes, settled: int) -> int:
        text, lengths, _ = decode(window)
        symbols = self.pieces.symbols(text)
        runs = self.pieces.runs(symbols)
        shared = set(runs[0][1]).intersection(*(cuts for _, cuts in runs))
        for cut in sorted(shared - {0}, reverse=True)[:3]:
            fresh = {(state, cuts) for state, cuts in self.pieces.runs(symbols[cut:])}
            since = {(s, tuple(c - cut for c in cuts if c >= cut)) for s, cuts in runs}
            before = tuple(c for c in runs[0][1] if c < cut)
            if fresh == since and self.pieces.cuts(symbols[:cut]) == before:
                return sum(lengths[:cut])
        return 0

    def _tokens(self, window: bytes, places: list[int], cuts: Cuts, *, ends: bool) -> Tokens | None:
        """Tokens of the pieces of `window`; the last one `ends` with it or goes on beyond.
        None if a byte has no token."""
        tokens: list[int] = []
        edges = [places[cut] for cut in cuts] + [len(window)]
        for number, (start, end) in enumerate(zip(edges, edges[1:], strict=False), 2):
            piece = window[start:end]
            if piece in self.whole and (ends or number < len(edges)):
                tokens.append(self.whole[piece])
                continue
            ids = self.pairs.encode(piece)
            if ids is None:
                return None
            tokens.extend(ids)
        return tuple(tokens)


def _places(lengths: list[int]) -> list[int]:
    """Where each character begins, in bytes, and where the last one ends."""
    return list(accumulate(lengths, initial=0))


def expression_spans(*expressions: str) -> PieceAutomaton:
    """The pre-tokenizer that cuts by regular expressions, one after the other; a piece is a match
    or what lies between two matches. `BytelmError` for an expression that cannot be followed.

    >>> expression_spans(r" ?\\w+|\\s+").spans("two words")
    [(0, 3), (3, 9)]
    """
    return PieceAutomaton([Split(parse(expression)) for expression in expressions])
