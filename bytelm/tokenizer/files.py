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

Added tokens that a file does not call special are text, and found before any merge; they stay what
they are. What a codec of merges over bytes cannot do as the file says (a pre-tokenizer that cuts
text, a normaliser) is refused by name.
"""

import base64
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.damage import gunzip, id_count, malformed, parse_json
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
_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
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
    added: dict[int, bytes] = field(default_factory=dict)  # text that is found before any merge


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
    encoding = "utf-8" if layout == "byte-level" else "latin-1"
    added = [
        {"id": i, "content": text.decode(encoding), **_FLAGS, "special": False}
        for i, text in sorted(stored.added.items())
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
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
    added = [
        {"id": i, "content": name, **_FLAGS, "special": True}
        for name, i in sorted_by_id(stored.specials)
    ]
    value = to_json(stored, spell, "byte-level")
    added += value["added_tokens"]
    return dump({**value, "added_tokens": added, "post_processor": None})


def sorted_by_id(ids: Mapping[str, int]) -> list[tuple[str, int]]:
    """(name, id) in the order of the ids."""
    return sorted(ids.items(), key=lambda item: item[1])


def from_json(value: Mapping[str, Any], *, merges_only: bool = False) -> Stored:
    """The vocabulary in a `tokenizer.json`; `DataError` if it is not BPE over bytes, or more than
    that (`refuse_more`).

    merges_only: leave out what is more.
    """
    model = value.get("model") or {}
    if model.get("type", "BPE") != "BPE" or "vocab" not in model:
        raise DataError(f"only BPE models are read, not {model.get('type')!r}")
    if not merges_only:
        refuse_more(value)
    vocabulary: dict[str, int] = dict(model["vocab"])
    specials = _specials(value)
    id_count([*vocabulary.values(), *specials.values()])
    if len(set(vocabulary.values())) < len(vocabulary):
        raise DataError("two tokens of its vocabulary have one id")
    to_byte = _characters(vocabulary)
    taken = {number: name for name, number in specials.items()}
    byte_level = to_byte.get(" ") != 0x20
    added = {} if merges_only else _added_text(value, byte_level=byte_level)
    spelled = {
        word: _spell(word, to_byte)
        for word, number in vocabulary.items()
        if number not in taken and (number not in added or set(word) <= set(to_byte))
    }
    for word, text in spelled.items():
        if added.get(vocabulary[word], text) != text:
            raise DataError(f"the added token {word!r} is also the token of the bytes {text!r}")
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
    if model.get("ignore_merges") and unmerged and not merges_only:
        raise DataError(
            f"ignore_merges makes tokens of whole texts that no merge makes ({min(unmerged)}), "
            "which this codec does not"
        )
    return Stored(
        np.array(merges, np.int64).reshape(-1, 2),
        np.array(ids, np.int64),
        specials,
        unmerged,
        added,
    )


def refuse_more(value: Mapping[str, Any]) -> None:
    """`DataError` that names the first part of a `tokenizer.json` with which its ids are not those
    of its merges alone."""
    model = value["model"]
    for part in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(part):
            raise DataError(f"its {part} ({model[part]!r}) is beyond a codec of merges over bytes")
    if value.get("normalizer"):
        raise DataError(
            f"its normalizer ({_kinds(value['normalizer'])}) rewrites a text before it is encoded, "
            "and Binary BPE keeps every byte"
        )
    cutting = value.get("pre_tokenizer")
    parts = (cutting or {}).get("pretokenizers") or ([cutting] if cutting else [])
    whole = all(part["type"] == "ByteLevel" and not part.get("use_regex", True) for part in parts)
    if any(part.get("add_prefix_space") for part in parts):
        raise DataError("its pre-tokenizer puts a blank before a text (add_prefix_space)")
    if not whole and model.get("merges"):
        raise DataError(
            f"its pre-tokenizer ({_kinds(cutting)}) cuts a text into pieces, and Binary BPE merges "
            "over all of it: the ids would not be the same. Read it with the tokenizers library"
        )


def _kinds(component: Any) -> str:
    """The types of a component's members, or its own."""
    members = next((m for m in component.values() if isinstance(m, list) and m), [component])
    return ", ".join(str(member.get("type")) for member in members if isinstance(member, dict))


def _added_text(value: Mapping[str, Any], *, byte_level: bool) -> dict[int, bytes]:
    """Id -> bytes of the added tokens that are text; `DataError` for one that is found by other
    rules than by its bytes."""
    found: dict[int, bytes] = {}
    orders: set[bool] = set()
    for item in value.get("added_tokens") or ():
        if item.get("special", True):
            continue
        name = item["content"]
        for flag in ("single_word", "lstrip", "rstrip"):
            if item.get(flag):
                raise DataError(f"the added token {name!r} is found by a rule of its own ({flag})")
        if not byte_level and any(ord(character) > 255 for character in name):
            raise DataError(f"the added token {name!r} is not written in latin-1, as the others")
        found[item["id"]] = name.encode("utf-8" if byte_level else "latin-1")
        orders.add(bool(item.get("normalized")))
    if len(orders) > 1:
        raise DataError("some of its added tokens are found before others (normalized)")
    return found


def _specials(value: Mapping[str, Any]) -> dict[str, int]:
    """Name -> id of the special tokens that a file declares, in either way."""
    specials = {
        item["content"]: item["id"]
        for item in value.get("added_tokens") or ()
        if item.get("special", True)
    }
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


def read(path: str | os.PathLike[str], *, merges_only: bool = False) -> Stored:
    """Reads a tokenizer.json, the same compressed (.json.gz), or a folder that has one of them;
    merges_only as in `from_json`."""
    place = Path(path)
    if place.is_dir():
        found = [place / NAME, place / (NAME + ".gz")]
        place = next((file for file in found if file.exists()), found[0])
    data = place.read_bytes()
    with malformed(place, "a tokenizer file", error=DataError):
        return from_json(parse_json(gunzip(data)), merges_only=merges_only)


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
