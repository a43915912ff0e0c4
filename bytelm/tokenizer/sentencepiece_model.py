"""Export for sentencepiece: a BPE `.model` whose characters stand for bytes.

sentencepiece knows no bytes and drops or rewrites many characters, so each byte is one character of
the CJK block, U+4E00 + byte, and every step that rewrites text is off. It merges whatever
neighbours spell a piece, best score first and then leftmost; with all tokens reachable from their
own bytes that is exact BPE (while a token's bytes are undisturbed they go through the states of
its own encoding), so ids are equal. The file is a protocol buffer of a dozen fields, written here
by hand; the field numbers are those of sentencepiece_model.proto.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

FIRST = 0x4E00
_TO_TEXT = {value: FIRST + value for value in range(256)}


def as_text(data: bytes) -> str:
    """What sentencepiece is given for `data`.

    >>> as_text(bytes([0, 1]))
    '一丁'
    """
    return data.decode("latin-1").translate(_TO_TEXT)


def sentencepiece_model(
    tokens: Sequence[bytes | str], ranks: Sequence[int], *, unknown: str
) -> bytes:
    """The `.model` file. `tokens` in the order of ids: bytes, or the names of special tokens, of
    which one is `unknown` (sentencepiece demands it); `ranks` in the order of merging."""
    # its classes are made when it is imported
    proto: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    kinds = proto.ModelProto.SentencePiece
    model = proto.ModelProto()
    for token, rank in zip(tokens, ranks, strict=True):
        if isinstance(token, bytes):
            model.pieces.add(piece=as_text(token), score=-float(rank), type=kinds.NORMAL)
        else:
            kind = kinds.UNKNOWN if token == unknown else kinds.CONTROL
            model.pieces.add(piece=token, type=kind)
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size = proto.TrainerSpec.BPE, len(tokens)
    trainer.unk_id, trainer.unk_piece = tokens.index(unknown), unknown
    trainer.bos_id = trainer.eos_id = trainer.pad_id = -1  # none of them is ever added
    rules = model.normalizer_spec
    rules.name = "identity"
    rules.add_dummy_prefix = rules.remove_extra_whitespaces = rules.escape_whitespaces = False
    return bytes(model.SerializeToString(deterministic=True))
