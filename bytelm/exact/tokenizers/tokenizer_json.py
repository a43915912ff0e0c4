"""`tokenizer.json` (Hugging Face `tokenizers`, Binary BPE) as tables.

Two families are lossless and read here: byte-level BPE, whose pre-tokenizer is used as it is, and
SentencePiece-like BPE or Unigram over characters with `<0xHH>` bytes. The rest (WordPiece and other
tokenizers that drop blanks or case) has no bytes to be exact about and is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bytelm.damage import distinct_ids, id_count, malformed, parse_json
from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.added import behind_added
from bytelm.exact.tokenizers.components import BLANK, REFUSED, Limit, limits, parts
from bytelm.exact.tokenizers.pre_tokenizers import piece_automaton
from bytelm.exact.tokenizers.tables import (
    TokenizerTables,
    byte_level,
    character_encoder,
    is_marker,
    merge_encoder,
    piece_bytes,
)

Json = dict[str, Any]


def read_hf_tokenizer(tokenizer: Any) -> TokenizerTables:
    """Tables of a transformers tokenizer. `BytelmError` for a slow one, which does not hold its
    whole definition, and as `read_definition`."""
    if type(tokenizer).__name__ == "ByT5Tokenizer":
        return _byt5_tables(tokenizer)
    if not tokenizer.is_fast:
        raise BytelmError(
            f"{type(tokenizer).__name__} keeps its rules in Python and not in a tokenizer.json, so "
            "its tokens have no bytes here: give a tokenizer that has one, or a TokenLM with the "
            "bytes of each token (bytelm.TokenLM)"
        )
    tables = read_definition(json.loads(tokenizer.backend_tokenizer.to_str()))
    for name, token in zip(
        tokenizer.all_special_tokens,
        tokenizer.convert_tokens_to_ids(tokenizer.all_special_tokens),
        strict=True,
    ):
        tables.specials[name] = token
        tables.vocab_bytes[token] = None
    added = _added_before(lambda text: tokenizer(text).input_ids, tokenizer.backend_tokenizer)
    tables.set_ends(added=added, bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id)
    return tables


def _byt5_tables(tokenizer: Any) -> TokenizerTables:
    """Tables of ByT5's tokenizer: byte b is id b + 3, all else is special."""
    tables = TokenizerTables([None] * max(259, len(tokenizer)))
    tables.vocab_bytes[3:259] = [bytes([byte]) for byte in range(256)]
    tables.encoder = merge_encoder(tables.vocab_bytes, [], None)
    names = tokenizer.all_special_tokens
    ids = tokenizer.convert_tokens_to_ids(names)
    tables.specials = dict(zip(names, ids, strict=True))
    tables.set_ends(bos=tokenizer.pad_token_id, eos=tokenizer.eos_token_id)
    tables.start_ids = [tokenizer.pad_token_id]  # where T5's decoders start
    return tables


def read_tokenizer_json(path: str | Path) -> TokenizerTables:
    """Tables of a tokenizer.json file. EOS and BOS are found by name, unless it adds a BOS."""
    data = Path(path).read_bytes()
    with malformed(path, "a tokenizer.json"):
        tables, tokenizer = read_definition(parse_json(data)), Tokenizer.from_buffer(data)
        added = _added_before(lambda text: tokenizer.encode(text).ids, tokenizer)
        tables.set_ends(
            added=added, bos=tables.specials.get("<s>"), eos=tables.specials.get("</s>")
        )
        return tables


def _added_before(encode: Callable[[str], list[int]], tokenizer: Tokenizer) -> list[int]:
    """The ids that `encode`, with all that the tokenizer adds, puts before a text."""
    for text in ("a", "the", "0", "."):  # one that the vocabulary can write
        plain, whole = tokenizer.encode(text, add_special_tokens=False).ids, encode(text)
        for at in range(len(whole) - len(plain) + 1) if plain else ():
            if whole[at : at + len(plain)] == plain:
                return list(whole[:at])
    return []


def read_definition(definition: Json) -> TokenizerTables:
    """Tables of a parsed tokenizer.json; `BytelmError` if it does not keep every byte of a text, or
    has a component that `components.py` refuses."""
    model = definition["model"]
    kind = model.get("type", "BPE")
    cutting = [part.get("type") for part in parts(definition.get("pre_tokenizer"))]
    kinds = {*cutting, *(part.get("type") for part in parts(definition.get("decoder")))}
    over_bytes = kind == "BPE" and "ByteLevel" in kinds
    if not over_bytes and kind != "Unigram" and not (kind == "BPE" and model.get("byte_fallback")):
        raise BytelmError(
            f"a {kind} tokenizer with {sorted(map(str, kinds)) or 'no'} pre-tokenizer does not "
            "keep every byte of its text, so it has no exact byte probabilities (BERT's WordPiece "
            "is one)"
        )
    if not model["vocab"]:
        raise BytelmError(f"this {kind} tokenizer has no tokens: its vocabulary is empty")
    if kind == "BPE":
        distinct_ids(model["vocab"])
    distinct_ids({added["content"]: added["id"] for added in definition.get("added_tokens", [])})
    found = list(limits(definition, over_bytes=over_bytes))
    refused = next((limit for limit in found if limit.action == REFUSED), None)
    if refused is not None:
        raise BytelmError(f"this tokenizer cannot be read: {refused.why}")
    return (_byte_level_tables if over_bytes else _character_tables)(definition, found)


def _place_added(
    definition: Json, tables: TokenizerTables, *, blanks: bool = False
) -> list[dict[bytes, int]]:
    """Specials lose their bytes, added tokens that are text get theirs. Returns the latter, bytes
    -> ids, in the two groups that a tokenizer looks for one after the other.

    blanks: whether U+2581 stands for a blank, as it does where a normaliser has made it of one.
    """
    groups: list[dict[bytes, int]] = [{}, {}]  # before normalisation and after it
    added_ids = [added["id"] for added in definition.get("added_tokens", [])]
    id_count([*added_ids, *range(len(tables.vocab_bytes))])
    for added in definition.get("added_tokens", []):
        i, content = added["id"], added["content"]
        tables.vocab_bytes += [None] * (i + 1 - len(tables.vocab_bytes))
        if added["special"] or is_marker(content):
            tables.specials[content] = i
            tables.vocab_bytes[i] = None
            continue
        data = (content.replace(BLANK, " ") if blanks else content).encode()
        tables.vocab_bytes[i] = data
        normalised = bool(added.get("normalized"))
        if normalised or not blanks or BLANK not in content:
            groups[normalised][data] = i
            flags = [name for name in ("single_word", "lstrip", "rstrip") if added.get(name)]
            if flags:
                tables.reason = f"its added token {content!r} is matched with {flags[0]}"
    for part in parts(definition.get("post_processor")):  # where our own files declare them
        for name, item in (part.get("special_tokens") or {}).items():
            for i in item["ids"]:
                tables.specials.setdefault(name, i)
                tables.vocab_bytes[i] = None
    return groups


def _byte_level_tables(definition: Json, found: list[Limit]) -> TokenizerTables:
    model = definition["model"]
    tables = TokenizerTables([None] * id_count(model["vocab"].values()))
    for token, i in model["vocab"].items():
        tables.vocab_bytes[i] = byte_level(token)
    spelled = list(tables.vocab_bytes)
    added = _place_added(definition, tables)
    for i, data in enumerate(spelled):
        if tables.vocab_bytes[i] is None:
            spelled[i] = None
        elif data is not None and data != tables.vocab_bytes[i]:
            tables.vocab_bytes[i] = data
            tables.reason = f"token {i} is both {data!r} and an added token spelled another way"
    tables.reason = _first(found) or tables.reason
    try:
        pieces = None if tables.reason else piece_automaton(definition.get("pre_tokenizer"))
    except BytelmError as error:
        tables.reason = str(error)
    if not tables.reason:
        encoder = merge_encoder(
            spelled,
            [_merge(entry) for entry in model["merges"]],
            pieces,
            ignore_merges=bool(model.get("ignore_merges")),
        )
        tables.encoder = behind_added(encoder, added)
    return tables


def _first(found: list[Limit]) -> str:
    """The first reason for mode "all" only, if there is one."""
    return found[0].why if found else ""


def _merge(entry: str | list[str]) -> tuple[bytes, bytes]:
    """A merge, written "a b" in older files and ["a", "b"] in newer ones."""
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    a, b = byte_level(left), byte_level(right)
    if a is None or b is None:
        raise BytelmError(f"the merge {entry!r} is not written in the byte-level alphabet")
    return a, b


def _character_tables(definition: Json, found: list[Limit]) -> TokenizerTables:
    model = definition["model"]
    unigram = model["type"] == "Unigram"
    pieces = [piece for piece, _ in model["vocab"]] if unigram else _by_id(model["vocab"])
    unknown = model.get("unk_id") if unigram else model["vocab"].get(model.get("unk_token"))
    tables = TokenizerTables([piece_bytes(piece) if piece else None for piece in pieces])
    if unknown is not None:
        tables.vocab_bytes[unknown] = None
    tables.dummy_prefix = b" " if _adds_blank(definition) else b""
    tables.rewriting = tuple(limit.kind for limit in found if limit.place == "normalizer")
    added = _place_added(definition, tables, blanks=True)
    if any(added) and tables.dummy_prefix:
        name = min(data for group in added for data in group).decode()
        tables.reason = (
            f"it puts a dummy blank before a text, but not before the added token {name!r}"
        )
    others = [limit for limit in found if limit.place != "normalizer"]
    tables.reason = _first(others) or tables.reason
    if not tables.rewriting and not _shows_blanks(definition):
        tables.reason = (
            "nothing in it makes blanks visible, so they and U+2581 are different pieces"
        )
    if not tables.reason:
        plain = _without_normaliser(definition, set(tables.specials))
        encoder = character_encoder(
            lambda text: plain.encode(text, add_special_tokens=False).ids, pieces, unknown
        )
        tables.encoder = behind_added(encoder, added)
    return tables


def _by_id(vocab: dict[str, int]) -> list[str]:
    pieces = [""] * id_count(vocab.values())
    for piece, i in vocab.items():
        pieces[i] = piece
    return pieces


def _adds_blank(definition: Json) -> bool:
    """Whether the tokenizer puts a dummy blank before a text."""
    if any(part["type"] == "Prepend" for part in parts(definition.get("normalizer"))):
        return True
    return any(
        part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in parts(definition.get("pre_tokenizer"))
    )


def _shows_blanks(definition: Json) -> bool:
    """Whether a text's blanks become U+2581 before pieces are looked for."""
    kinds = [*parts(definition.get("normalizer")), *parts(definition.get("pre_tokenizer"))]
    return any(part["type"] in ("Replace", "Metaspace") for part in kinds)


def _without_normaliser(definition: Json, specials: set[str]) -> Tokenizer:
    """The tokenizer with blanks made visible and nothing else done to the text: no normalisation,
    no dummy blank, no specials found in it."""
    model = dict(definition["model"])
    if model["type"] == "Unigram":  # text that spells a special must not be cheap to write as it
        model["vocab"] = [[p, -1e5 if p in specials else score] for p, score in model["vocab"]]
    metaspace = [p for p in parts(definition.get("pre_tokenizer")) if p["type"] == "Metaspace"]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    steps = {
        "normalizer": None if metaspace else replace,
        "pre_tokenizer": {**metaspace[0], "prepend_scheme": "never"} if metaspace else None,
    }
    shell: Json = {"version": "1.0", "added_tokens": [], "model": model, **steps}
    return Tokenizer.from_str(json.dumps(shell))
