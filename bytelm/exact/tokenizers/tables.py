"""Tokenizers as tables: the bytes of every token, and the encoder of a growing text.

One builder per family; the readers of file formats beside this file end here.
Special tokens (BOS, markers, padding) never have bytes: text that happens to spell `<|endoftext|>`
is text. Normalisers (NFC, NFKC, lower case) are never applied: a text is scored as it stands, and
where a tokenizer would have rewritten it, its canonical encodings are those of the text as it is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from bytelm.errors import BytelmError, CheckpointError, unknown_name
from bytelm.exact.tokenizers.bpe import BytePairs
from bytelm.exact.tokenizers.encoders import (
    CharacterEncoder,
    Encoder,
    PlainBPE,
)
from bytelm.exact.tokenizers.piece_automaton import PieceAutomaton
from bytelm.exact.tokenizers.pretokenized import PretokenizedBPE
from bytelm.lm.fim_templates import MARKERS, family_of

BLANK = "\u2581"  # SentencePiece's visible blank
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MARKER = re.compile(
    r"<(\||\uff5c)[^\s<>]+\1>|<(fim|PRE|SUF|MID)[-_a-z]*>|\[(/?INST|[A-Z]+FIX|MIDDLE)\]"
)
_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>")
_BEGINNINGS = ("<|begin_of_text|>", "<s>", "<bos>")
_TURN = re.compile(r"im_(start|end)|eot|eom|turn|header|<\|end\|>|user|assistant")


@dataclass
class TokenizerTables:
    """What the converter needs to know of a tokenizer.

    vocab_bytes  bytes of each id, None = special
    encoder      canonical encodings; None with `reason` saying why there are none
    specials     names of special tokens -> ids, for contexts
    eos_ids      specials that end a text
    start_ids    what stands before every text; empty if the tokenizer has nothing of the kind
    dummy_prefix bytes that the tokenizer puts before every text (the dummy blank)
    rewriting    the parts of its normaliser that rewrite a text before it is encoded
    """

    vocab_bytes: list[bytes | None]
    encoder: Encoder | None = None
    reason: str = ""
    specials: dict[str, int] = field(default_factory=dict)
    eos_ids: set[int] = field(default_factory=set)
    start_ids: list[int] = field(default_factory=list)
    dummy_prefix: bytes = b""
    rewriting: tuple[str, ...] = ()

    @property
    def prefix(self) -> bytes:
        """`dummy_prefix`, as `ByteConverter` takes it under its short name."""
        return self.dummy_prefix

    def require_encoder(self) -> Encoder:
        """The encoder; `BytelmError` that says why, if the canonical modes cannot be had."""
        if self.encoder is None or self.rewriting:
            reason = self.reason or f"its normaliser ({', '.join(self.rewriting)}) rewrites texts"
            raise BytelmError(
                f'the canonical modes cannot read this tokenizer: {reason}; use mode="all"'
            )
        return self.encoder

    def announce_rewriting(self) -> None:
        """A `UserWarning` if the tokenizer rewrites texts, which is not done here."""
        if self.rewriting:
            warnings.warn(
                f"the model's tokenizer rewrites a text before it is encoded "
                f"({', '.join(self.rewriting)}), so the model has never seen what that changes "
                "(line ends, runs of blanks or other forms of a character, as the case may be): a "
                "text is read here as it stands",
                stacklevel=4,
            )

    def with_ends(self, ends: Iterable[int | str]) -> TokenizerTables:
        """These tables with further special tokens, ids or names, that end a text. `BytelmError`
        for one that is none."""
        found = set()
        for end in ends:
            if isinstance(end, str) and end not in self.specials:
                raise BytelmError(unknown_name("special symbol", end, self.specials))
            i = self.specials[end] if isinstance(end, str) else end
            if not 0 <= i < len(self.vocab_bytes):
                raise BytelmError(f"end id {i} is not one of the model's {len(self.vocab_bytes)}")
            if self.vocab_bytes[i] is not None:
                raise BytelmError(
                    f"end id {i} is the text {self.vocab_bytes[i]!r}, and only special tokens end "
                    "a text: to end at a text, give stop=[...]"
                )
            found.add(i)
        return replace(self, eos_ids=self.eos_ids | found)

    def of_size(self, size: int) -> TokenizerTables:
        """These tables for a model that predicts `size` ids: special tokens beyond them (a padding
        token added for fine-tuning) are dropped, ids that no token has are padding.

        `CheckpointError` if text, or what stands before every text, needs an id beyond them.
        """
        surplus = range(size, len(self.vocab_bytes))
        text = [i for i in surplus if self.vocab_bytes[i] is not None]
        needed = [*text, *(i for i in self.start_ids if i >= size)]
        if needed:
            data = self.vocab_bytes[needed[0]]
            names = [name for name, i in self.specials.items() if i == needed[0]]
            raise CheckpointError(
                f"the tokenizer has {len(self.vocab_bytes)} tokens but the model predicts {size}, "
                f"and token {needed[0]} ({names[0] if data is None and names else data!r}) is "
                "needed: these files do not belong together"
            )
        return replace(
            self,
            vocab_bytes=[*self.vocab_bytes[:size], *[None] * (size - len(self.vocab_bytes))],
            specials={name: i for name, i in self.specials.items() if i < size},
            eos_ids={i for i in self.eos_ids if i < size},
        )

    def set_ends(
        self,
        *,
        added: Sequence[int] = (),
        bos: int | None = None,
        eos: int | None = None,
        more: Iterable[int] = (),
    ) -> None:
        """Set what stands before a text, and what ends one.

        added: ids that the tokenizer itself puts before every text. If it puts none there, a text
        begins after what separates documents in training: a separator by name, else EOS, else BOS;
        but not a marker of turns in a conversation, which some chat models call EOS or BOS.

        more: ids that end a text besides EOS, `<|endoftext|>` and what ends a middle in the family
        of infilling models whose symbols these are. Of all of them, special tokens count.
        """
        family = family_of(self.specials)
        known = ["<|endoftext|>", *(family.ends_of(self.specials) if family else ())]
        ends = [*more, *(self.specials[name] for name in known if name in self.specials)]
        ends += [] if eos is None else [eos]
        self.eos_ids = {i for i in ends if self.vocab_bytes[i] is None}
        named = [self.specials.get(name) for name in (*_SEPARATORS, *_BEGINNINGS)]
        names = {i: name for name, i in self.specials.items()}
        likely = [*named[: len(_SEPARATORS)], eos, bos, *named[len(_SEPARATORS) :]]
        known = [i for i in likely if i is not None]
        plain = [i for i in known if not _TURN.search(names.get(i, ""))]
        self.start_ids = list(added) or (plain or known)[:1]


@lru_cache
def byte_alphabet() -> dict[str, int]:
    """The 256 printable characters that GPT-2 style vocabularies write bytes with -> the bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def byte_level(token: str) -> bytes | None:
    """The bytes of a GPT-2 style token; None if it is not written in that alphabet.

    >>> byte_level("Ġhello")
    b' hello'
    """
    alphabet = byte_alphabet()
    if not token or any(character not in alphabet for character in token):
        return None
    return bytes(alphabet[character] for character in token)


def piece_bytes(piece: str) -> bytes:
    """The bytes of a SentencePiece piece: `<0x0A>` is a byte, U+2581 a blank.

    >>> piece_bytes("\\u2581the"), piece_bytes("<0x0A>")
    (b' the', b'\\n')
    """
    match = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece.replace(BLANK, " ").encode()


def is_marker(content: str) -> bool:
    """Whether an added token that its file does not call special is a marker all the same, by its
    spelling (`<|fim_prefix|>`, `<fim_prefix>`, `[INST]`). Tags such as `<table>` are text."""
    return content in MARKERS or _MARKER.fullmatch(content) is not None


def merge_encoder(
    vocab_bytes: Sequence[bytes | None],
    merges: Sequence[tuple[bytes, bytes]],
    spans: PieceAutomaton | None,
    *,
    ignore_merges: bool = False,
) -> Encoder:
    """Byte-level BPE with a merge list, the first merge of highest priority.

    spans: the pre-tokenizer; None if it never cuts.
    ignore_merges: a piece that is a token is that token, whatever the merges say.
    """
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    ids = _first_ids(vocab_bytes)
    pairs = BytePairs(ids, lambda a, b: ranks.get((a, b)))
    return _pair_encoder(pairs, spans, ids if ignore_merges else None)


def rank_encoder(ranks: Mapping[bytes, int], spans: PieceAutomaton | None) -> Encoder:
    """tiktoken's BPE: neighbours join if their concatenation is a token, lowest rank first; a
    piece that is a token is that token."""
    pairs = BytePairs(dict(ranks), lambda a, b: ranks.get(a + b))
    return _pair_encoder(pairs, spans, dict(ranks))


def _pair_encoder(
    pairs: BytePairs, spans: PieceAutomaton | None, whole: dict[bytes, int] | None
) -> Encoder:
    return PlainBPE(pairs) if spans is None else PretokenizedBPE(pairs, spans, whole=whole)


def _first_ids(vocab_bytes: Sequence[bytes | None]) -> dict[bytes, int]:
    ids: dict[bytes, int] = {}
    for i, data in enumerate(vocab_bytes):
        if data is not None:
            ids.setdefault(data, i)
    return ids


def character_encoder(
    encode_text: Callable[[str], list[int]], pieces: Sequence[str], unknown: int | None
) -> CharacterEncoder:
    """A SentencePiece-like encoder: `encode_text` without normalisation, bytes as fallback."""
    byte_ids = {}
    for i, piece in enumerate(pieces):
        match = _BYTE_PIECE.fullmatch(piece)
        if match:
            byte_ids[int(match[1], 16)] = i

    def known(text: str) -> list[int]:
        ids = encode_text(text)
        if unknown is not None and unknown in ids:
            raise KeyError(text)  # no byte fallback: these characters cannot be written
        return ids

    return CharacterEncoder(known, byte_ids)
