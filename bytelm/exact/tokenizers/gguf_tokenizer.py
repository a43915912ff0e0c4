"""The tokenizer in a GGUF file's own metadata, as tables.

Not transformers' conversion of it, which forgets the pre-tokenizer: the file names it
(`tokenizer.ggml.pre`), and the regular expressions behind the names that are known are data in
`known_expressions.py`. A file with another name still converts in mode "all", which needs no
pre-tokenizer. SentencePiece vocabularies are handed to its own library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.damage import malformed
from bytelm.errors import CheckpointError, MissingExtraError, unknown_name
from bytelm.exact.gguf_header import check_gguf
from bytelm.exact.tokenizers.added import behind_added
from bytelm.exact.tokenizers.known_expressions import EXPRESSIONS
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.sentencepiece_model import Piece, tables_of_pieces
from bytelm.exact.tokenizers.tables import (
    TokenizerTables,
    byte_level,
    is_marker,
    merge_encoder,
    piece_bytes,
)
from bytelm.lm.fim_templates import MARKERS

if TYPE_CHECKING:
    from gguf import GGUFReader

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
# byte-level pre-tokenizers whose files put BOS before a text unless they say otherwise (llama.cpp)
_ADDING_BOS = (
    "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "tekken", "lfm2"
)  # fmt: skip
# what ends a text besides EOS: ends of turns and messages, and of middles (llama.cpp)
_ENDS = tuple(
    f"tokenizer.ggml.{kind}_token_id" for kind in ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
)
# ends of turns by name (llama.cpp): no generation_config.json lists them here
_TURN_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|end_of_text|>", "<EOT>"
)  # fmt: skip
_WHOLE_PIECES = ("llama-bpe", "llama3", "llama-v3")  # a piece that is a token is that token


def read_metadata(path: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file as Python values."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError("gguf", "hf", "loading a GGUF file") from error
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    check_gguf(path)
    with malformed(path, "a GGUF file"):
        reader = GGUFReader(path)
        keys = [key for key in reader.fields if key.startswith("tokenizer.")]
        if "tokenizer.ggml.tokens" not in keys:
            raise CheckpointError(f"{path} holds no tokenizer, so its tokens have no bytes")
        return {key: _value(reader, key) for key in keys}


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def read_gguf_tokenizer(metadata: dict[str, Any]) -> TokenizerTables:
    """Tables of the tokenizer in a GGUF file's metadata."""
    kind = metadata.get("tokenizer.ggml.model")
    readers = {"gpt2": _byte_level_tables, "llama": _sentencepiece_tables}
    if kind not in readers:
        raise CheckpointError(unknown_name("GGUF tokenizer", kind, readers))
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise CheckpointError(f"the file has {len(tokens)} tokens but {len(types)} token types")
    tables = readers[kind](metadata, tokens, types)
    bos = metadata.get("tokenizer.ggml.bos_token_id", 1 if kind == "llama" else None)
    eos = metadata.get("tokenizer.ggml.eos_token_id", 2 if kind == "llama" else None)
    for name, i in (("bos", bos), ("eos", eos)):
        if i is not None and not 0 <= i < len(tokens):
            raise CheckpointError(
                f"the file's {name} id {i} is not one of its {len(tokens)} tokens"
            )
    by_default = kind == "llama" or metadata.get("tokenizer.ggml.pre") in _ADDING_BOS
    adds = metadata.get("tokenizer.ggml.add_bos_token", by_default)
    more = [metadata[key] for key in _ENDS if key in metadata]
    more += [tables.specials[name] for name in _TURN_ENDS if name in tables.specials]
    for i in more:
        if not 0 <= i < len(tokens):
            raise CheckpointError(f"the file's end id {i} is not one of its {len(tokens)} tokens")
    tables.set_ends(added=[bos] if adds and bos is not None else [], bos=bos, eos=eos, more=more)
    return tables


def _place_specials(
    tables: TokenizerTables, tokens: list[str], types: list[int]
) -> dict[bytes, int]:
    """Specials lose their bytes. Returns the added tokens that are text, bytes -> ids."""
    added: dict[bytes, int] = {}
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        marker = _is_special(token, kind)
        if kind == _CONTROL or marker:
            tables.specials[token] = i
        if kind in (_UNKNOWN, _CONTROL, _UNUSED) or marker:
            tables.vocab_bytes[i] = None
        elif kind == _USER_DEFINED:
            tables.vocab_bytes[i] = token.encode()
            added[token.encode()] = i
    return added


def _byte_level_tables(
    metadata: dict[str, Any], tokens: list[str], types: list[int]
) -> TokenizerTables:
    tables = TokenizerTables([byte_level(token) for token in tokens])
    added = _place_specials(tables, tokens, types)
    merged = list(tables.vocab_bytes)
    for i in added.values():
        merged[i] = None
    name = metadata.get("tokenizer.ggml.pre")
    if name not in EXPRESSIONS:
        tables.reason = unknown_name("pre-tokenizer", name, EXPRESSIONS)
    if not tables.reason:
        merges = [entry.split(" ") for entry in metadata["tokenizer.ggml.merges"]]
        encoder = merge_encoder(
            merged,
            [(byte_level(a) or b"", byte_level(b) or b"") for a, b in merges],
            expression_spans(*EXPRESSIONS[name]),  # type: ignore[index]
            ignore_merges=name in _WHOLE_PIECES,
        )
        tables.encoder = behind_added(encoder, [added])
    return tables


def _sentencepiece_tables(
    metadata: dict[str, Any], tokens: list[str], types: list[int]
) -> TokenizerTables:
    scores = metadata.get("tokenizer.ggml.scores") or []
    tables = TokenizerTables([piece_bytes(token) if token else None for token in tokens])
    if len(scores) != len(tokens):
        tables.reason = "the file has no scores of its pieces"
    else:
        try:  # SentencePiece ranks its merges by the scores of their results
            tables, _ = tables_of_pieces(_pieces(tokens, scores, types))
        except RuntimeError as error:
            tables.reason = f"sentencepiece cannot read its pieces ({error})"
    for i in _place_specials(tables, tokens, types).values():
        tables.vocab_bytes[i] = piece_bytes(tokens[i])
    tables.dummy_prefix = b" " if metadata.get("tokenizer.ggml.add_space_prefix", True) else b""
    return tables


def _is_special(token: str, kind: int) -> bool:
    """Whether a token is a marker: those of infilling are ordinary tokens in some files."""
    return token in MARKERS or (kind == _USER_DEFINED and is_marker(token))


def _pieces(tokens: list[str], scores: list[float], types: list[int]) -> list[Piece]:
    """The vocabulary for SentencePiece: markers are never text, and no piece is empty."""
    kinds = [
        _CONTROL if _is_special(token, kind) else kind if token else _UNUSED
        for token, kind in zip(tokens, types, strict=True)
    ]
    for i in [i for i, kind in enumerate(kinds) if kind == _UNKNOWN][1:]:
        kinds[i] = _UNUSED  # SentencePiece knows one
    texts = [token or f"\0{i}" for i, token in enumerate(tokens)]
    return [Piece(*piece) for piece in zip(texts, scores, kinds, strict=True)]
