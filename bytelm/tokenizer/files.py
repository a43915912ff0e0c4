"""Reads and writes `tokenizer.json`, and exports for sentencepiece and tiktoken.

The format has no bytes, only strings. Two alphabets are in use: `byte-level` (GPT-2's printable
characters, with a ByteLevel step and no regular expression: Hugging Face then splits *text* as we
split its UTF-8) and `latin-1` (character U+00xx is byte xx, no pre-tokenizer: Hugging Face takes
arbitrary bytes as `data.decode("latin-1")`). A reader must tell them apart: latin-1 files have all
of U+0000-U+00FF, byte-level files none of U+0000-U+0020. Some early published files moved 0xAB and
0xBB to private-use characters; those are read too.

No bytes may encode to a special token, whatever they spell. Hugging Face finds every entry of
`added_tokens` in any text, so special tokens are declared elsewhere: in the vocabulary, where no
merge makes them, and in a post-processor that adds none of them to a text. One that is spelled like
a token of bytes is set apart by a character that neither alphabet has. Files that do list them as
`added_tokens`, as the published ones, are read all the same.
"""

import base64
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.errors import BytelmError, DataError, unknown_name

LAYOUTS = ("byte-level", "latin-1")
NAME = "tokenizer.json"
CONFIG = "tokenizer_config.json"
# special token -> what transformers calls it
_ROLES = {
    "<|start|>": "bos_token",
    "<|end|>": "eos_token",
    "<|pad|>": "pad_token",
    "<|unk|>": "unk_token",
    "<|cls|>": "cls_token",
    "<|sep|>": "sep_token",
    "<|mask|>": "mask_token",
}
_APART = "\ue0ff"  # in front of a special token's name where a token of bytes is spelled so
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]


def alphabet(layout: str) -> list[str]:
    """The character of every byte value.

    >>> alphabet("byte-level")[0], alphabet("latin-1")[0]
    ('Ā', '\\x00')
    """
    if layout not in LAYOUTS:
        raise BytelmError(unknown_name("layout", layout, LAYOUTS))
    if layout == "latin-1":
        return [chr(value) for value in range(256)]
    others = iter(range(256, 512))
    printable = set(_PRINTABLE)
    return [chr(value if value in printable else next(others)) for value in range(256)]


@dataclass(frozen=True)
class Stored:
    """A vocabulary as a file numbers it. Internal ids: the bytes, then the merges in order."""

    merges: np.ndarray  # (M, 2) int64 internal ids
    file_ids: np.ndarray  # (256 + M,) the file's id of each internal id
    specials: dict[str, int]  # name -> the file's id
    unmerged: dict[int, bytes]  # tokens in the vocabulary that no merge makes


def to_json(stored: Stored, spell: list[bytes], layout: str) -> dict[str, Any]:
    """The object of `tokenizer.json`. `spell` holds the bytes of each internal id."""
    table = str.maketrans({chr(i): c for i, c in enumerate(alphabet(layout))})
    words = [token.decode("latin-1").translate(table) for token in spell]
    vocabulary = {word: int(i) for word, i in zip(words, stored.file_ids, strict=True)}
    vocabulary |= {
        token.decode("latin-1").translate(table): i for i, token in stored.unmerged.items()
    }
    specials = {}
    for name, i in sorted_by_id(stored.specials):
        word = name
        while word in vocabulary:
            word = _APART + word
        vocabulary[word] = i
        specials[name] = {"id": name, "ids": [i], "tokens": [word]}
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **byte_level} if layout == "byte-level" else None,
        "post_processor": _declaration(specials) if specials else None,
        "decoder": {"type": "ByteLevel", **byte_level}
        if layout == "byte-level"
        else {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted_by_id(vocabulary)),
            "merges": [[words[a], words[b]] for a, b in stored.merges.tolist()],
        },
    }


def config_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object of `tokenizer_config.json` beside the content of a `tokenizer.json`: what
    `transformers.AutoTokenizer` takes for the end of a text, for padding and so on.

    It finds its special tokens in any text, too, unless they are to be split like text.
    """
    declared = (content["post_processor"] or {}).get("special_tokens", {})
    roles = {role: declared[name]["tokens"][0] for name, role in _ROLES.items() if name in declared}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        **roles,
    }


def _declaration(specials: dict[str, Any]) -> dict[str, Any]:
    """A post-processor that names special tokens and leaves every text as it is."""
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first],
        "pair": [first, second],
        "special_tokens": specials,
    }


def identity(stored: Stored, spell: list[bytes]) -> bytes:
    """What tells vocabularies apart, the same for ever: the file as it was first written, with
    special tokens as `added_tokens`. Runs store its digest."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": name, **flags, "special": True}
        for name, i in sorted_by_id(stored.specials)
    ]
    value = to_json(stored, spell, "byte-level")
    return dump({**value, "added_tokens": added, "post_processor": None})


def sorted_by_id(ids: Mapping[str, int]) -> list[tuple[str, int]]:
    """(name, id) in the order of the ids."""
    return sorted(ids.items(), key=lambda item: item[1])


def from_json(value: Mapping[str, Any]) -> Stored:
    """The vocabulary in a `tokenizer.json`; `DataError` if it is not BPE over bytes."""
    model = value.get("model") or {}
    if model.get("type", "BPE") != "BPE" or "vocab" not in model:
        raise DataError(f"only BPE models are read, not {model.get('type')!r}")
    vocabulary: dict[str, int] = dict(model["vocab"])
    specials = _specials(value)
    to_byte = _characters(vocabulary)
    taken = {number: name for name, number in specials.items()}
    spelled = {
        word: _spell(word, to_byte) for word, number in vocabulary.items() if number not in taken
    }
    letters = [word for word in spelled if len(word) == 1]
    internal = {spelled[word]: spelled[word][0] for word in letters}
    ids = [0] * 256
    for word in letters:
        ids[spelled[word][0]] = vocabulary[word]
    merges = []
    for left, right in map(_pair, model.get("merges") or ()):
        a, b = _spell(left, to_byte), _spell(right, to_byte)
        if a not in internal or b not in internal or left + right not in vocabulary:
            raise DataError(f"the merge {left!r} + {right!r} names a token that is not there yet")
        if (number := vocabulary[left + right]) in taken:
            raise DataError(
                f"the merge {left!r} + {right!r} makes the special token {taken[number]!r}: bytes "
                "that spell it would encode to it. Files written before version 0.2 from data that "
                "holds the names of special tokens are so; train the vocabulary again"
            )
        merges.append((internal[a], internal[b]))
        internal.setdefault(a + b, 255 + len(merges))
        ids.append(vocabulary[left + right])
    unmerged = {vocabulary[word]: text for word, text in spelled.items() if text not in internal}
    return Stored(
        np.array(merges, np.int64).reshape(-1, 2), np.array(ids, np.int64), specials, unmerged
    )


def _specials(value: Mapping[str, Any]) -> dict[str, int]:
    """Name -> id of the special tokens that a file declares, in either way."""
    specials = {item["content"]: item["id"] for item in value.get("added_tokens") or ()}
    declared = (value.get("post_processor") or {}).get("special_tokens") or {}
    known = set(specials.values())
    return specials | {
        name: item["ids"][0] for name, item in declared.items() if item["ids"][0] not in known
    }


def _pair(merge: str | list[str]) -> list[str]:
    """A merge is a list of two, or in older files a string with one space."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise DataError(f"cannot split the merge {merge!r} into two tokens")
    return parts


def _characters(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Character -> byte, after looking which of the two alphabets the vocabulary is written in."""
    letters = {word for word in vocabulary if len(word) == 1}
    for layout in LAYOUTS:
        to_byte = {character: value for value, character in enumerate(alphabet(layout))}
        missing = set(to_byte) - letters
        if layout == "latin-1" and missing == {"\xab", "\xbb"}:
            moved = sorted(letter for letter in letters - set(to_byte) if letter >= "\ue000")
            if len(moved) >= 2:
                return to_byte | {moved[0]: 0xAB, moved[1]: 0xBB}
        if not missing:
            return to_byte
    raise DataError(
        f"the vocabulary has {len(letters)} one-character tokens, which are neither all of the "
        "byte-level alphabet nor all of latin-1: it cannot encode every byte"
    )


def _spell(word: str, to_byte: Mapping[str, int]) -> bytes:
    try:
        return bytes([to_byte[character] for character in word])
    except KeyError as error:
        raise DataError(f"the token {word!r} has a character that stands for no byte") from error


# ---- files --------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Stored:
    """Reads a tokenizer.json, the same compressed (.json.gz), or a folder that has one of them."""
    place = Path(path)
    if place.is_dir():
        found = [place / NAME, place / (NAME + ".gz")]
        place = next((file for file in found if file.exists()), found[0])
    data = place.read_bytes()
    try:
        return from_json(json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data))
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{place} is not a tokenizer file: {error}") from error


def dump(value: Mapping[str, Any]) -> bytes:
    """The JSON of a tokenizer file: UTF-8, no blanks, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def compressed(data: bytes) -> bytes:
    """gzip without a time stamp: the same content, the same file."""
    return gzip.compress(data, 9, mtime=0)


def tiktoken_lines(tokens: Iterable[bytes]) -> bytes:
    """tiktoken's mergeable ranks: one base64 token and its rank a line, in merge order."""
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    return b"".join(lines)
