"""The cursor of byte-pair merges, with and without a pre-tokenizer.

Inside a piece the encoding of every beginning is that of a shorter beginning and one token, so the
tokens that may end at the next byte are those that reach there from the beginnings before it: a
piece keeps the nodes from which some token reaches on (`PieceEncoding`), a handful, whatever its
length. A pre-tokenizer's automaton reads the text beside it; each of its runs, one or two, has the
piece that is open in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.cursor import Cursor, Node, Nodes, common_beginning
from bytelm.exact.tokenizers.lookahead import PLACEHOLDER, code_points, decode
from bytelm.exact.tokenizers.piece_automaton import PieceAutomaton
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie


@dataclass(frozen=True, slots=True)
class _Reach:
    """A node, and the tokens (of those in [lo, hi) of the trie) which agree with the `depth` bytes
    since. last: the last token of the node in this piece, b"" at its start."""

    node: Node
    last: bytes
    lo: int
    hi: int
    depth: int


class PieceEncoding:
    """A piece of the text under byte-pair merges, read so far. Immutable.

    base    the node where the piece starts; None if the tokenizer cannot write what stands before
    node    the node here, inside the piece; None if it has none
    whole   pieces that are one token whatever the merges say
    piece   the bytes of the piece; None if they are not needed
    """

    __slots__ = ("pairs", "trie", "whole", "base", "node", "piece", "reaches")

    def __init__(
        self,
        pairs: BytePairs,
        trie: PrefixTrie,
        whole: dict[bytes, int],
        base: Node | None,
        *,
        node: Node | None = None,
        piece: bytes | None = b"",
        reaches: tuple[_Reach, ...] | None = None,
    ):
        self.pairs, self.trie, self.whole, self.base = pairs, trie, whole, base
        self.piece = piece
        if reaches is None:
            node = base
            reaches = () if base is None else (_Reach(base, b"", *trie.everything, 0),)
        self.node, self.reaches = node, reaches

    @property
    def empty(self) -> bool:
        """Whether nothing was read yet."""
        return (
            len(self.reaches) == 1 and self.reaches[0].node is self.base and self.node is self.base
        )

    def following(self) -> PieceEncoding:
        """The empty piece after this one."""
        return PieceEncoding(self.pairs, self.trie, self.whole, self.end())

    def feed(self, data: bytes) -> PieceEncoding:
        """The piece longer by some bytes."""
        piece = self
        for byte in data:
            piece = piece.push(byte)
        return piece

    def push(self, byte: int) -> PieceEncoding:
        """The piece one byte longer."""
        trie, pairs = self.trie, self.pairs
        reaches: list[_Reach] = []
        node, last = None, b""
        for reach in self.reaches:  # those of longer tokens first
            lo, hi = trie.narrow((reach.lo, reach.hi), reach.depth, byte)
            if lo == hi:
                continue
            depth = reach.depth + 1
            reaches.append(_Reach(reach.node, reach.last, lo, hi, depth))
            if node is None and trie.is_exact(lo, depth):
                token = trie.vocab_bytes[trie.order[lo]]
                assert token is not None
                if token in pairs.ids and pairs.are_neighbours(reach.last, token):
                    node, last = reach.node.child(pairs.ids[token]), token
        if node is not None:
            reaches.append(_Reach(node, last, *trie.everything, 0))
        piece = self.piece
        if piece is not None:
            piece = piece + bytes([byte]) if self.whole and len(piece) < trie.longest else None
        return PieceEncoding(
            pairs, trie, self.whole, self.base, node=node, piece=piece, reaches=tuple(reaches)
        )

    def end(self) -> Node | None:
        """The node of the encoding if the piece ends here; None if it has none."""
        if self.piece and self.base is not None and self.piece in self.whole:
            return self.base.child(self.whole[self.piece])
        return self.node

    def settled(self) -> Node | None:
        """A node that the encodings of all pieces which start so have in common."""
        return common_beginning([reach.node for reach in self.reaches]) or self.base

    def key(self, node: Node) -> Hashable:
        """All that decides which tokens may follow `node`, for this piece."""
        here = self.reaches[-1] if self.reaches and self.reaches[-1].depth == 0 else None
        ends = self.end() is node
        return (here.last if here and here.node is node else None, ends, self.piece)


class PairsCursor(Cursor):
    """The cursor of byte-pair merges over the whole text."""

    __slots__ = ("piece",)

    def __init__(self, piece: PieceEncoding):
        self.piece = piece

    def push(self, byte: int) -> PairsCursor:
        return PairsCursor(self.piece.push(byte))

    def here(self) -> Nodes:
        return () if self.piece.node is None else (self.piece.node,)

    def settled(self) -> Node:
        return self.piece.settled()

    def key(self, node: Node) -> Hashable:
        return self.piece.key(node)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of the automaton, and the piece that is open in it."""

    state: int
    piece: PieceEncoding


class PieceCursor(Cursor):
    """The cursor of byte-pair merges behind a pre-tokenizer. runs: after the last whole character;
    start: the node before the text; tail: the bytes of the next one, if it is incomplete."""

    __slots__ = ("automaton", "start", "runs", "tail", "_here")

    def __init__(
        self, automaton: PieceAutomaton, start: Node, runs: tuple[_Run, ...], tail: bytes = b""
    ):
        self.automaton, self.start, self.runs, self.tail = automaton, start, runs, tail
        self._here: Nodes | None = None

    @classmethod
    def of(cls, automaton: PieceAutomaton, piece: PieceEncoding) -> PieceCursor:
        """The cursor of a text that starts with `piece`, which is empty."""
        return cls(automaton, piece.base, (_Run(0, piece),))

    def push(self, byte: int) -> PieceCursor:
        data = self.tail + bytes([byte])
        text, lengths, tail = decode(data)
        runs, at = self.runs, 0
        for symbol, length in zip(self.automaton.symbols(text), lengths, strict=True):
            runs = self._read(runs, symbol, data[at : at + length])
            at += length
        return PieceCursor(self.automaton, self.start, runs, tail)

    def _read(self, runs: Iterable[_Run], symbol: int, data: bytes) -> tuple[_Run, ...]:
        """The runs after a character of a class, or after its first bytes."""
        longer: dict[PieceEncoding, PieceEncoding] = {}
        after: dict[tuple[int, int], _Run] = {}
        for run in runs:
            begun: PieceEncoding | None = None
            for cut, state in self.automaton.steps[run.state][symbol]:
                piece = run.piece
                if cut and not piece.empty:
                    begun = begun or piece.following()
                    piece = begun
                if piece not in longer:
                    longer[piece] = piece.feed(data)
                after[state, id(longer[piece])] = _Run(state, longer[piece])
        return tuple(after.values())

    def here(self) -> Nodes:
        if self._here is None:
            self._here = self._find()
        return self._here

    def _find(self) -> Nodes:
        runs = self.runs
        for i in range(len(self.tail)):  # taken for what it is if nothing completes it
            runs = self._read(runs, self.automaton.symbols(PLACEHOLDER)[0], self.tail[i : i + 1])
        (ended,) = (run.piece.end() for run in runs if self.automaton.steps[run.state][-1])
        nodes = [run.piece.end() for run in runs if self.automaton.can_cut[run.state]]
        nodes += [run.piece.node for run in runs if self.automaton.can_grow[run.state]]
        if self.tail:  # a character that has only begun cannot end a piece
            for symbol in self.automaton.classes.within(*code_points(self.tail)):
                nodes += [run.piece.node for run in self._read(self.runs, symbol, self.tail)]
        others = {id(node): node for node in nodes if node is not None and node is not ended}
        return (ended, *others.values()) if ended is not None or others else ()

    def settled(self) -> Node:
        written = [run.piece.base for run in self.runs if run.piece.base is not None]
        return common_beginning(written) or self.start

    def key(self, node: Node) -> Hashable:
        return self.tail, tuple((run.state, run.piece.key(node)) for run in self.runs)
