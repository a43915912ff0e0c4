"""SentencePiece model files as tables.

Such a file is a small protocol-buffer message. It is read and rewritten here by hand (fields by
number, forty lines) for two reasons: the pieces' types are needed, and the processor must encode
without normalisation and without the dummy blank, which is a matter of replacing one field of the
message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import sentencepiece

from bytelm.damage import malformed
from bytelm.errors import DataError
from bytelm.exact.tokenizers.added import behind_added
from bytelm.exact.tokenizers.tables import TokenizerTables, character_encoder, piece_bytes
from bytelm.lm.fim_templates import MARKERS

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
# NormalizerSpec: name = "identity", add_dummy_prefix = 0, remove_extra_whitespaces = 0
_IDENTITY = b"\x0a\x08identity\x18\x00\x20\x00\x28\x01"


# TrainerSpec: byte-pair merges (model_type = 2) with bytes as fallback (35)
BPE_TRAINER = b"\x12\x05\x18\x02\x98\x02\x01"


class Piece(NamedTuple):
    """A piece as the file has it; `kind` is 1 for ordinary ones, 6 for a single byte."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class _Field:
    number: int
    value: int | bytes
    raw: bytes


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[_Field]:
    """The fields of a protocol-buffer message."""
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at), 2: (0, at)}[key & 7]
            if key & 7 == 2:
                size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        yield _Field(key >> 3, value, data[start:at])


def read_sentencepiece(path: str | Path) -> TokenizerTables:
    """Tables of a SentencePiece model file (BPE or Unigram).

    `DataError` if it is none, or writes blanks as suffixes.
    """
    data = Path(path).read_bytes()
    with malformed(path, "a SentencePiece model", error=DataError):
        return _read(path, data)


def _read(path: str | Path, data: bytes) -> TokenizerTables:
    try:
        fields = list(_fields(data))
        pieces = _pieces(fields)
        (trainer,) = (
            {f.number: f.value for f in _fields(_bytes(f))} for f in fields if f.number == 2
        )
        normaliser = [
            {f.number: f.value for f in _fields(_bytes(f))} for f in fields if f.number == 3
        ]
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise DataError(f"{path} is not a SentencePiece model") from error
    if trainer.get(24):
        raise DataError(f"{path} writes blanks as suffixes, which is not supported")
    # markers of infilling are normal pieces in some files (Code Llama), and no text all the same
    pieces = [p._replace(kind=_CONTROL) if p.text in MARKERS else p for p in pieces]
    tables, processor = tables_of_pieces(pieces, b"".join(f.raw for f in fields if f.number == 2))
    rules = normaliser[0] if normaliser else {}
    tables.dummy_prefix = b" " if rules.get(3, 1) else b""
    tables.rewriting = _rewriting(rules)
    bos, eos = processor.bos_id(), processor.eos_id()
    # the file says nothing of it, but every model with such a BOS is trained with it
    tables.set_ends(added=[bos] if bos >= 0 else [], eos=eos if eos >= 0 else None)
    return tables


def _rewriting(rules: dict[int, int | bytes]) -> tuple[str, ...]:
    """What a NormalizerSpec does to a text besides making blanks visible: the rules by their name,
    unless they are the identity, and the removal of extra blanks, which is its default."""
    name, table = bytes(rules.get(1, b"")).decode(), rules.get(2, b"")  # type: ignore[arg-type]
    found = [name or "a table of its own"] if table else []
    return (*found, "remove_extra_whitespaces") if rules.get(4, 1) else tuple(found)


def tables_of_pieces(
    pieces: Sequence[Piece], trainer: bytes = BPE_TRAINER
) -> tuple[TokenizerTables, sentencepiece.SentencePieceProcessor]:
    """Tables of a SentencePiece vocabulary, without what stands before and after a text, and the
    library's processor of it.

    trainer: the message that says how pieces are found; by default byte-pair merges by score, with
    bytes as fallback. Pieces that the user defined are text that is found before anything else.
    """
    without_bytes = (_UNKNOWN, _CONTROL, _UNUSED)
    tables = TokenizerTables(
        [None if piece.kind in without_bytes else piece_bytes(piece.text) for piece in pieces]
    )
    tables.specials = {p.text: i for i, p in enumerate(pieces) if p.kind == _CONTROL}
    own = {i: piece for i, piece in enumerate(pieces) if piece.kind == _USER_DEFINED}
    hidden = [p._replace(kind=_UNUSED) if i in own else p for i, p in enumerate(pieces)]
    plain = b"".join(map(_written, hidden)) + trainer
    plain += b"\x1a" + bytes([len(_IDENTITY)]) + _IDENTITY
    processor = sentencepiece.SentencePieceProcessor(model_proto=plain)
    unknown = processor.unk_id()
    names = [piece.text for piece in pieces]
    encoder = character_encoder(processor.encode, names, unknown if unknown >= 0 else None)
    added = {piece_bytes(piece.text): i for i, piece in own.items()}
    tables.encoder = behind_added(encoder, [added])
    return tables, processor


def _written(piece: Piece) -> bytes:
    """A piece as a field of the message."""
    data = piece.text.encode()
    body = b"\x0a" + _number(len(data)) + data + b"\x15" + struct.pack("<f", piece.score)
    body += b"\x18" + _number(piece.kind)
    return b"\x0a" + _number(len(body)) + body


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _message(field: _Field) -> dict[int, int | bytes]:
    return {inner.number: inner.value for inner in _fields(_bytes(field))}


def _bytes(field: _Field) -> bytes:
    if not isinstance(field.value, bytes):
        raise ValueError("a message was expected")
    return field.value


def _pieces(fields: list[_Field]) -> list[Piece]:
    pieces = []
    for field in fields:
        if field.number == 1:
            inner = _message(field)
            (score,) = struct.unpack("<f", bytes(inner.get(2, bytes(4))))  # type: ignore[arg-type]
            kind = int(inner.get(3, _NORMAL))
            pieces.append(Piece(bytes(inner[1]).decode(), score, kind))  # type: ignore[arg-type]
    if not pieces:
        raise ValueError("no pieces")
    return pieces
