"""The table of components of a tokenizer.json, walked row by row with a tiny tokenizer of each
kind: what it says is done is what happens, against the library."""

import itertools
import json

import pytest
from tokenizers import Tokenizer

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.components import (
    ALL_ONLY,
    COMPONENTS,
    REFUSED,
    STANDS,
    limits,
    table,
)
from bytelm.exact.tokenizers.tables import byte_alphabet
from bytelm.exact.tokenizers.tokenizer_json import read_definition

BLANK = "\u2581"
VISIBLE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPELLED = [
    {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]


def shell(model, **more):
    return {"version": "1.0", "added_tokens": [], **more, "model": model}


def over_bytes():
    """GPT-2's shape: 256 bytes and a few merges."""
    letters = list(byte_alphabet())
    merges = [["a", "b"], ["Ġ", "a"], ["1", "1"], ["Ġ", "Ġ"], ["Ċ", "Ċ"]]
    vocab = {word: i for i, word in enumerate([*letters, *map("".join, merges)])}
    model = {"type": "BPE", "vocab": vocab, "merges": merges}
    return shell(model, normalizer=None, pre_tokenizer=BYTES, post_processor=None, decoder=BYTES)


def over_characters():
    """Llama's shape: characters, blanks made visible, bytes for the rest."""
    pieces = ["<unk>", *[f"<0x{i:02X}>" for i in range(256)], BLANK, *"abé1.", "ab", f"{BLANK}a"]
    vocab = {piece: i for i, piece in enumerate([*pieces, BLANK * 2])}
    merges = [["a", "b"], [BLANK, "a"], [BLANK, BLANK]]
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": True}
    decoder = {"type": "Sequence", "decoders": SPELLED}
    return shell(
        {**model, "unk_token": "<unk>"},
        normalizer=VISIBLE, pre_tokenizer=None, post_processor=None, decoder=decoder,
    )  # fmt: skip


def unigram():
    scored = [["<unk>", 0.0], *[[f"<0x{i:02X}>", -9.0] for i in range(256)]]
    scored += [[BLANK, -2.0], ["a", -1.0], ["b", -1.5], ["ab", -2.2], [f"{BLANK}a", -2.7]]
    model = {"type": "Unigram", "vocab": scored, "unk_id": 0, "byte_fallback": True}
    return {**over_characters(), "model": model}


WORDS = {"vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
NORMAL = {
    "Strip": {"strip_left": True, "strip_right": True},
    "Precompiled": {"precompiled_charsmap": ""},
    "BertNormalizer": {
        "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True
    },
    "Replace of blanks by U+2581": {"pattern": {"String": " "}, "content": BLANK},
    "Replace of anything else": {"pattern": {"String": "a"}, "content": "b"},
    "Prepend of U+2581": {"prepend": BLANK},
    "Prepend of anything else": {"prepend": "x"},
}  # fmt: skip
CUTS = {
    "ByteLevel with add_prefix_space": {**BYTES, "add_prefix_space": True},
    "ByteLevel": BYTES,
    "Split at blanks": {
        "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
    },
    "Split": {"pattern": {"Regex": r"\s+(?!\S)|\s+"}, "behavior": "Isolated", "invert": False},
    "Digits": {"individual_digits": True},
    "Punctuation": {"behavior": "Isolated"},
    "Metaspace of U+2581": {"replacement": BLANK, "prepend_scheme": "always", "split": True},
    "Metaspace of anything else": {"replacement": "_", "prepend_scheme": "never", "split": True},
    "CharDelimiterSplit": {"delimiter": "b"},
    "FixedLength": {"length": 2},
}  # fmt: skip
SPELL = {
    "ByteLevel": BYTES,
    "Metaspace": {"replacement": BLANK, "prepend_scheme": "never", "split": True},
    "Replace of U+2581 by blanks": SPELLED[0],
    "Replace of anything else": {"pattern": {"String": "a"}, "content": "b"},
    "Strip of one blank in front": {"content": " ", "start": 1, "stop": 0},
    "Strip of anything else": {"content": "a", "start": 1, "stop": 0},
    "BPEDecoder": {"suffix": "</w>"},
    "WordPiece": {"prefix": "##", "cleanup": True},
    "CTC": {"pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
}
POST = {
    "TemplateProcessing": {
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {},
    },
    "RobertaProcessing": {
        "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False
    },
    "BertProcessing": {"sep": ["</s>", 2], "cls": ["<s>", 0]},
    "ByteLevel": BYTES,
}  # fmt: skip
OPTIONS = {"dropout": 0.1, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def sample(row, base):
    """`base` with the row's component put in."""
    named = f"{row.kind} {row.having}".strip()
    part = {"type": row.kind}
    if row.place == "normalizer":
        part |= NORMAL.get(named, {})
        members = [part] if base["normalizer"] in (None, part) else [part, base["normalizer"]]
        return {**base, "normalizer": {"type": "Sequence", "normalizers": members}}
    if row.place == "pre_tokenizer":
        part |= CUTS.get(named, {})
        if row.kind == "Metaspace":
            return {**base, "normalizer": None, "pre_tokenizer": part}
        also = [base["pre_tokenizer"]] if base["pre_tokenizer"] and part != BYTES else []
        members = [part, *also]
        return {**base, "pre_tokenizer": {"type": "Sequence", "pretokenizers": members}}
    if row.place == "decoder":
        part |= SPELL.get(named, {})
        members = base["decoder"].get("decoders", [base["decoder"]])
        return {**base, "decoder": {"type": "Sequence", "decoders": [*members, part]}}
    if row.place == "post_processor":
        return {**base, "post_processor": part | POST[row.kind]}
    if row.place == "option":
        return {**base, "model": {**base["model"], row.kind: OPTIONS.get(row.kind, True)}}
    if row.place == "added token":
        content = {"special": "<end>"}.get(row.kind, "ba")
        flags = {**ADDED, "special": row.kind == "special"}
        flags |= {row.kind: True} if row.kind in flags else {}
        token = {"id": len(base["model"]["vocab"]), "content": content, **flags}
        return {**base, "added_tokens": [token]}
    if row.place == "model":
        words = {"WordPiece": {"max_input_chars_per_word": 9, "continuing_subword_prefix": "##"}}
        other = {"type": row.kind, **WORDS, **words.get(row.kind, {})}
        return {"BPE": base, "Unigram": unigram()}.get(row.kind, {**base, "model": other})
    settings = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    if row.kind == "padding":
        settings = {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "a",
        }  # fmt: skip
    return {**base, row.kind: settings}


def strings():
    for length in range(4):
        yield from map("".join, itertools.product("ab é1.\n", repeat=length))


CASES = [(row, shape) for row in COMPONENTS for shape in ("over_bytes", "over_characters")]


@pytest.mark.parametrize("row, shape", CASES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_what_the_table_says_is_what_happens(row, shape):
    if (row.kind, shape) == ("Unigram", "over_bytes"):
        return  # there is no such tokenizer
    base = over_bytes() if shape == "over_bytes" else over_characters()
    if row.kind == "ByteLevel" and row.place in ("pre_tokenizer", "decoder"):
        base = base if shape == "over_bytes" else unigram()  # merges behind it are over bytes
    definition = sample(row, base)
    action = getattr(row, shape)
    if action == REFUSED:
        with pytest.raises(BytelmError, match=f"{row.kind}"):
            read_definition(definition)
        return
    tables = read_definition(json.loads(json.dumps(definition)))
    assert b"a" in tables.vocab_bytes and b"ab" in tables.vocab_bytes
    if action == ALL_ONLY:
        with pytest.raises(BytelmError, match=f"{row.kind}.*mode=.all."):
            tables.require_encoder()
        return
    theirs = Tokenizer.from_str(json.dumps({**definition, "truncation": None, "padding": None}))
    encoder = tables.require_encoder()
    for text in strings():
        if action == STANDS and theirs.normalizer:
            text = theirs.normalizer.normalize_str(text).replace(BLANK, " ")
        if row.kind == "Metaspace" and text.startswith(" "):
            continue  # its first blank stands for the dummy blank
        ids = encoder.encode(tables.dummy_prefix + text.encode()) if text else []
        assert ids == theirs.encode(text, add_special_tokens=False).ids, text
        assert b"".join(tables.vocab_bytes[i] for i in ids) == (
            tables.dummy_prefix + text.encode() if text else b""
        )


@pytest.mark.parametrize("place", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
def test_a_component_without_a_row_is_refused_by_its_name(place):
    definition = {**over_bytes(), place: {"type": "Invented"}}
    if place == "decoder":
        definition[place] = {"type": "Sequence", "decoders": [BYTES, {"type": "Invented"}]}
    with pytest.raises(BytelmError, match=f"its {place} Invented is not known"):
        read_definition(definition)


def test_every_component_of_the_library_has_a_row():
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    places = {
        "normalizer": normalizers,
        "pre_tokenizer": pre_tokenizers,
        "model": models,
        "decoder": decoders,
        "post_processor": processors,
    }
    known = {(row.place, row.kind) for row in COMPONENTS}
    for place, module in places.items():
        base = {"post_processor": "PostProcessor", "pre_tokenizer": "PreTokenizer"}.get(place)
        base = getattr(module, base or place.capitalize())
        kinds = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base)]
        names = {kind.__name__ for kind in kinds} - {base.__name__, "Sequence"}
        assert len(names) > 3 and {(place, name) for name in names} <= known, names
    assert ("pre_tokenizer", "Metaspace") in known


def test_nothing_is_wrong_with_plain_tokenizers_and_the_table_prints():
    assert not list(limits(over_bytes(), over_bytes=True))
    assert not list(limits(over_characters(), over_bytes=False))
    assert all(row.kind in table() for row in COMPONENTS)


def test_characters_without_visible_blanks_are_refused_by_name():
    tables = read_definition({**over_characters(), "normalizer": None})
    with pytest.raises(BytelmError, match="nothing in it makes blanks visible"):
        tables.require_encoder()


def test_cuts_after_bytes_became_characters_are_followed_for_ascii_alone():
    """Falcon's digits: three of them, after GPT-2's expression."""
    three = {"type": "Split", "pattern": {"Regex": "[0-9]{2}"}, "behavior": "Isolated"}
    cut = {"type": "Sequence", "pretokenizers": [BYTES, {**three, "invert": False}]}
    definition = {**over_bytes(), "pre_tokenizer": cut}
    tables, theirs = read_definition(definition), Tokenizer.from_str(json.dumps(definition))
    for text in ("a111é", " 1111", "11\u00b21"):
        assert tables.encoder.encode(text.encode()) == theirs.encode(text).ids
    cut["pretokenizers"][1] = {"type": "Digits", "individual_digits": False}
    assert "Digits cuts after bytes became characters" in read_definition(definition).reason


@pytest.mark.parametrize("make", [over_bytes, over_characters, unigram])
def test_a_vocabulary_that_is_empty_or_has_an_id_twice_is_refused_by_name(make):
    definition = make()
    added = [{"id": 300, "content": name, "special": True} for name in ("<a>", "<b>")]
    with pytest.raises(BytelmError, match="the id 300 to both '<a>' and '<b>'"):
        read_definition({**definition, "added_tokens": added})
    if isinstance(definition["model"]["vocab"], dict):
        twice = {**definition["model"]["vocab"], "bb": 3}
        with pytest.raises(BytelmError, match="the id 3 to both .* and 'bb'"):
            read_definition({**definition, "model": {**definition["model"], "vocab": twice}})
    empty = type(definition["model"]["vocab"])()
    with pytest.raises(BytelmError, match="has no tokens: its vocabulary is empty"):
        read_definition({**definition, "model": {**definition["model"], "vocab": empty}})
