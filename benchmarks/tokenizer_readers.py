"""Tokenizer files read both ways: here, and by the library that they are of."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.exact_packages import package_file
from benchmarks.tokenizer_texts import texts
from bytelm.exact.tokenizers.components import parts
from bytelm.exact.tokenizers.known_expressions import EXPRESSIONS
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.tables import TokenizerTables

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Read:
    """A tokenizer read both ways.

    encode      the reference's ids of a text, without what stands before it
    normalise   what the reference does to a text first, where it is not what ours does
    before, end what the reference puts before a text and calls its end; None where the format has
                no such thing
    """

    tables: TokenizerTables
    encode: Encode
    normalise: Callable[[str], str] = str
    before: list[int] | None = None
    end: int | None = None


def read_json(key: str) -> Read:
    """A tokenizer.json, by transformers and by its backend."""
    from transformers import AutoTokenizer

    from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer

    folder = package_file(key).parent
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    backend = tokenizer.backend_tokenizer
    plain: Encode = lambda text: backend.encode(text, add_special_tokens=False).ids  # noqa: E731
    whole, bare = tokenizer("a").input_ids, plain("a")
    before = whole[: len(whole) - len(bare)] if whole[-len(bare) :] == bare else None
    normal = backend.normalizer
    definition = json.loads(backend.to_str())
    form = normal is not None and '"NF' in json.dumps(definition["normalizer"])
    kinds = [part["type"] for part in parts(definition["pre_tokenizer"])]
    rewrite = normal.normalize_str if form else _first_blank if "Metaspace" in kinds else _blanks
    if "ByteLevel" in kinds and not form:
        rewrite = str
    return Read(read_hf_tokenizer(tokenizer), plain, rewrite, before, tokenizer.eos_token_id)


def _blanks(text: str) -> str:
    """Tokenizers over characters cannot tell U+2581 from a blank."""
    return text.replace("\u2581", " ")


def _first_blank(text: str) -> str:
    """Metaspace puts no dummy blank before a blank: it takes the first one for it."""
    text = _blanks(text)
    return text[1:] if text.startswith(" ") else text


def read_model(key: str) -> Read:
    """A SentencePiece model, by its library."""
    import sentencepiece

    from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(package_file(key)))
    tables = read_sentencepiece(package_file(key))
    rewrite = _by_library(theirs, tables)
    return Read(tables, theirs.encode, rewrite, [theirs.bos_id()], theirs.eos_id())


def _by_library(processor: Any, tables: TokenizerTables) -> Callable[[str], str]:
    """What SentencePiece makes of a text, without its dummy blank."""
    dummy = "\u2581" if tables.dummy_prefix else ""
    return lambda text: processor.normalize(text).removeprefix(dummy).replace("\u2581", " ")


def ranked(expressions: tuple[str, ...], ranks: Callable[[str], dict[bytes, int]] | None = None):
    """A reader of tiktoken's ranks, against tiktoken."""

    def read(key: str) -> Read:
        import tiktoken

        from bytelm.exact.tokenizers.tables import rank_encoder
        from bytelm.exact.tokenizers.tokenizer_files import read_tiktoken

        pieces = expression_spans(*expressions)
        if ranks is None:
            tables = read_tiktoken(package_file(key), pieces)
        else:
            found = ranks(key)
            vocab: list[bytes | None] = [None] * (max(found.values()) + 1)
            for data, i in found.items():
                vocab[i] = data
            tables = TokenizerTables(vocab, rank_encoder(found, pieces))
        own = {data: i for i, data in enumerate(tables.vocab_bytes) if data is not None}
        theirs = tiktoken.Encoding(
            key, pat_str=expressions[0], mergeable_ranks=own, special_tokens={}
        )
        return Read(tables, theirs.encode_ordinary)

    return read


def tekken_ranks(key: str) -> dict[bytes, int]:
    """The ranks in Mistral's own JSON, of as many tokens as its models have."""
    stored = json.loads(package_file(key).read_text())
    size = stored["config"]["default_vocab_size"] - stored["config"]["default_num_special_tokens"]
    return {base64.b64decode(e["token_bytes"]): e["rank"] for e in stored["vocab"][:size]}


def read_gguf(key: str, **more: Any) -> Read:
    """The vocabulary of a GGUF file. The reference is the tokenizers library with the file's merges
    behind the family's expressions, or sentencepiece; the ids of the texts that come with the file
    are those of the family's original tokenizer."""
    from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata

    path = package_file(key)
    metadata = read_metadata(path) | more
    tables = read_gguf_tokenizer(metadata)
    given, kept = path.with_name(path.name + ".inp"), path.with_name(path.name + ".out")
    if tables.encoder is not None and given.is_file():
        known = given.read_bytes().decode().split("\n__ggml_vocab_test__\n")
        for text, line in zip(known, kept.read_text().split("\n"), strict=True):
            ids = tables.encoder.encode(tables.dummy_prefix + text.encode() if text else b"")
            if ids != [int(i) for i in line.split()]:
                raise AssertionError(f"{key}: other ids than its own list has of {text!r}")
    end = metadata.get("tokenizer.ggml.eos_token_id")
    if metadata["tokenizer.ggml.model"] == "llama":
        theirs = _sentencepiece(metadata)
        return Read(tables, theirs.encode, _by_library(theirs, tables), end=end)
    return Read(tables, _byte_level(metadata, tables), end=end)


def _byte_level(metadata: dict[str, Any], tables: TokenizerTables) -> Encode:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    tokens, name = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.pre"]
    merges = [tuple(entry.split(" ")) for entry in metadata["tokenizer.ggml.merges"]]
    vocab = {token: i for i, token in enumerate(tokens)}
    whole = name in ("llama-bpe", "llama3", "llama-v3")
    theirs = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole))
    splits = [pre_tokenizers.Split(Regex(e), "isolated") for e in EXPRESSIONS[name]]
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytewise])
    kinds = metadata.get("tokenizer.ggml.token_type") or []
    own = [t for t, kind in zip(tokens, kinds, strict=False) if kind == 4]
    text = [t for t in own if tables.vocab_bytes[vocab[t]] is not None]
    theirs.add_tokens([AddedToken(token, normalized=False) for token in text])
    return lambda string: theirs.encode(string, add_special_tokens=False).ids


def _sentencepiece(metadata: dict[str, Any]) -> Any:
    """The library over the vocabulary as it is, with the dummy blank of its own."""
    import sentencepiece

    from bytelm.exact.tokenizers import sentencepiece_model as ours
    from bytelm.exact.tokenizers.gguf_tokenizer import _pieces

    pieces = _pieces(
        metadata["tokenizer.ggml.tokens"],
        metadata["tokenizer.ggml.scores"],
        metadata["tokenizer.ggml.token_type"],
    )
    normal = b"\x0a\x08identity\x18" + bytes([metadata.get("tokenizer.ggml.add_space_prefix", 1)])
    normal += b"\x20\x00\x28\x01"
    proto = b"".join(map(ours._written, pieces)) + ours.BPE_TRAINER
    proto += b"\x1a" + bytes([len(normal)]) + normal
    return sentencepiece.SentencePieceProcessor(model_proto=proto)


def read_gpt2(_: str) -> Read:
    """GPT-2's two files, against tiktoken, whose ranks are the merges in order."""
    import tiktoken

    from bytelm.exact.tokenizers.tables import byte_level, merge_encoder

    ids = json.loads(package_file("gpt2-vocab").read_text())
    lines = package_file("gpt2-merges").read_text().split("\n")[1:]
    merges = [tuple(map(byte_level, line.split(" "))) for line in lines if " " in line]
    vocab: list[bytes | None] = [None] * len(ids)
    for token, i in ids.items():
        vocab[i] = byte_level(token)
    expressions = EXPRESSIONS["gpt-2"]
    tables = TokenizerTables(vocab, merge_encoder(vocab, merges, expression_spans(*expressions)))
    own = {data: i for i, data in enumerate(vocab) if data is not None}
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=expressions[0], mergeable_ranks=own, special_tokens={}
    )
    return Read(tables, theirs.encode_ordinary)


def read_world(key: str) -> Read:
    """RWKV's vocabulary, against a search for the longest match written out plainly."""
    from bytelm.exact.tokenizers.tokenizer_files import read_rwkv

    tables = read_rwkv(package_file(key))
    ids = {data: i for i, data in enumerate(tables.vocab_bytes) if data is not None}

    def encode(text: str) -> list[int]:
        data, found = text.encode(), []
        while data:
            size = next(n for n in range(min(128, len(data)), 0, -1) if data[:n] in ids)
            found.append(ids[data[:size]])
            data = data[size:]
        return found

    return Read(tables, encode, before=[0], end=0)


def read_binary(key: str) -> Read:
    """A Binary BPE of this repository, by the tokenizers library."""
    from tokenizers import Tokenizer

    from bytelm.exact.tokenizers.tokenizer_json import read_tokenizer_json

    path = Path(__file__).parent.parent / "tokenizers" / key / "tokenizer.json"
    theirs = Tokenizer.from_file(str(path))
    tables = read_tokenizer_json(path)
    return Read(tables, lambda text: theirs.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class Shape:
    """A tokenizer that no package has: the family's expressions with merges learnt here."""

    expressions: tuple[str, ...]

    def __call__(self, _: str) -> Read:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        from bytelm.exact.tokenizers.tokenizer_json import read_definition

        theirs = Tokenizer(models.BPE())
        splits = [pre_tokenizers.Split(Regex(e), "isolated") for e in self.expressions]
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        theirs.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytewise])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=1200, initial_alphabet=alphabet, show_progress=False, min_frequency=2
        )
        theirs.train_from_iterator(texts() * 2, trainer)
        return Read(
            read_definition(json.loads(theirs.to_str())),
            lambda text: theirs.encode(text, add_special_tokens=False).ids,
        )
