"""Added tokens that are text (GPT-NeoX's runs of blanks): matched before anything else.

The reference is the tokenizers library, and enumeration: which token prefixes some longer text has.
"""

import itertools
import json
import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from bytelm.exact.converter import ByteConverter
from bytelm.exact.tokenizers.tables import byte_alphabet
from bytelm.exact.tokenizers.tokenizer_json import read_definition
from tests.exact.test_cursors import check
from tests.exact.tiny import prefix_mass, random_lm, texts

BLANKS = [" " * n for n in (4, 3, 2)]
EXPRESSION = r"'s| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def tokenizer(added, merges, *, expression=EXPRESSION, normalized=False, special=()):
    """Byte-level BPE with these merges and added tokens."""
    spell = {byte: character for character, byte in byte_alphabet().items()}
    write = lambda text: "".join(spell[b] for b in text.encode())  # noqa: E731
    pairs = [(write(a), write(b)) for a, b in merges]
    names = [*spell.values(), *dict.fromkeys(a + b for a, b in pairs)]
    found = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=pairs))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.pre_tokenizer = byte_level
    if expression:
        cut = pre_tokenizers.Split(Regex(expression), "isolated")
        found.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    found.decoder = decoders.ByteLevel()
    found.add_tokens([AddedToken(text, normalized=normalized) for text in added])
    found.add_special_tokens([AddedToken(text, special=True) for text in special])
    return found


def characters(added, *, normalized=False):
    """A tokenizer of characters with single bytes to fall back on and no dummy blank (Gemma)."""
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [("a", "b"), ("\u2581", "a"), ("ab", "a"), ("\u2581", "\u2581")]
    names = ["<unk>", *single, *"ab\u2581<|", *(a + b for a, b in merges)]
    model = models.BPE(
        vocab={name: i for i, name in enumerate(names)}, merges=merges,
        byte_fallback=True, unk_token="<unk>", fuse_unk=True,
    )  # fmt: skip
    found = Tokenizer(model)
    found.normalizer = normalizers.Replace(" ", "\u2581")
    found.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    found.add_tokens([AddedToken(text, normalized=normalized) for text in added])
    return found


MERGES = [("a", "b"), ("b", "a"), (" ", "a"), (" ", " "), ("\n", "\n"), ("ab", "a"), ("\n", " ")]
CASES = {  # added tokens, merges, options, the alphabet of the texts
    "blanks": (BLANKS, MERGES, {}, "ab \n"),
    "blanks of two lengths and a gap": (["  ", "     "], MERGES, {}, "a \n"),
    "a prefix of another": (["ab", "abba"], MERGES, {}, "ab "),
    "a prefix with a gap": (["a", "abaa"], MERGES, {}, "ab "),
    "overlapping": (["ab", "ba", "aab"], MERGES, {}, "ab"),
    "merges alone": (["aba", "  "], MERGES, {"expression": None}, "ab "),
    "line ends": (["\n", "\n\n\n"], MERGES, {}, "a \n"),
    "beyond a blank": ([" \n"], MERGES, {}, "a \n"),
    "normalized": (BLANKS, MERGES, {"normalized": True}, "ab \n"),
    "an odd marker": (["<| odd |>"], MERGES, {"special": ["<s>"]}, "a<| "),
    "characters of two bytes": (["éa", "aéa"], MERGES, {}, "aé "),
}


CHARACTERS = {  # of a tokenizer of characters: added tokens, options, the alphabet of the texts
    "characters": (["\n\n", "aba", "b a"], {}, "ab \n"),
    "characters normalized": (["  a", "ba"], {"normalized": True}, "ab "),
}


@pytest.fixture(params=[*CASES, *CHARACTERS])
def case(request):
    if request.param in CHARACTERS:
        added, options, alphabet = CHARACTERS[request.param]
        reference = characters(added, **options)
    else:
        added, merges, options, alphabet = CASES[request.param]
        reference = tokenizer(added, merges, **options)
    tables = read_definition(json.loads(reference.to_str()))
    assert not tables.reason
    return reference, tables, alphabet


def strings(alphabet, longest):
    for length in range(longest + 1):
        yield from map("".join, itertools.product(alphabet, repeat=length))


def spelled(tables, ids) -> bytes:
    return b"".join(tables.vocab_bytes[i] for i in ids)


def test_ids_are_those_of_the_library(case):
    reference, tables, alphabet = case
    for text in strings(alphabet, 4):
        assert tables.encoder.encode(text.encode()) == reference.encode(text).ids, text


def test_token_prefixes_are_those_that_some_longer_text_has(case):
    """Complete and no more, by enumeration: three letters further, with others than the text's."""
    reference, tables, alphabet = case
    more = {*alphabet, "\t", "b", "."}
    short = list(strings(alphabet, 3))
    known: dict[bytes, set] = {text.encode(): set() for text in short}
    for text in short:
        for after in strings(more, 3):
            ids = reference.encode(text + after).ids
            for n in range(len(ids) + 1):
                known.setdefault(spelled(tables, ids[:n]), set()).add(tuple(ids[:n]))
    for text in short:
        window = text.encode()
        found = [tokens for tokens in tables.encoder.prefixes(window) if tokens is not None]
        assert set(found) == known[window], text
        assert len(found) == len(set(found))
        assert list(found[0]) == reference.encode(text).ids


def test_a_byte_at_a_time_they_are_the_same(case):
    _, tables, alphabet = case
    for text in strings(alphabet, 4):
        check(tables.encoder, tables.vocab_bytes, text.encode())
    draw = random.Random(3)
    for _ in range(20):
        text = "".join(draw.choices([*alphabet, "\t", ".", "é", "你", "🦊"], k=30)).encode()
        check(tables.encoder, tables.vocab_bytes, text)
        check(tables.encoder, tables.vocab_bytes, text[:-1])


def test_encoding_may_restart_where_it_says(case):
    _, tables, alphabet = case
    encoder = tables.encoder
    for text in strings(alphabet, 4):
        window = text.encode()
        at = encoder.restart(window, 0)
        for after in ["", *strings([*alphabet, "."], 2)]:
            ids = encoder.encode(window + after.encode())
            cut = encoder.encode(window[:at]) + encoder.encode(window[at:] + after.encode())
            assert ids == cut, (text, at, after)


@pytest.mark.parametrize("mode", ["canonical", "canonicalised"])
def test_probabilities_are_those_of_enumeration(mode):
    """Of a random model over few tokens: mass by decoded text, of what the tokenizer writes."""
    added, letters = {b"  ": 3, b"ab": 4, b"abba": 5}, [b"a", b"b", b" "]
    from bytelm.exact.tokenizers.added import AddedTextEncoder
    from bytelm.exact.tokenizers.tables import merge_encoder

    vocab = [*letters, *added, b"ba"]
    plain = [*letters, None, None, None, b"ba"]
    encoder = AddedTextEncoder(merge_encoder(plain, [(b"b", b"a")], None), added)
    lm = random_lm(vocab, horizon=3)
    canonical = {
        tuple(encoder.encode(text.encode())[:n]) for text in strings("ab ", 8) for n in range(9)
    }
    settings = {"mode": mode, "beam": 9, "epsilon": 0.0}
    converted = ByteConverter(lm, encoder, **settings)
    if mode == "canonicalised":
        from tests.exact.test_estimands import canonicalised

        lm = canonicalised(lm, canonical)
        mass = texts(lm)
        for text in strings("ab ", 4):
            found = converted.start(text.encode()).batch.log_lower.exp().item()
            assert found == pytest.approx(prefix_mass(mass, text.encode()), abs=1e-12)
        return
    for text in strings("ab ", 4):
        data = text.encode()
        total = sum(
            chain(lm, (*tokens, last))
            for tokens in canonical
            if data.startswith(b"".join(vocab[i] for i in tokens))
            for last, piece in enumerate(vocab)
            if covers(data, b"".join(vocab[i] for i in tokens), piece)
        )
        found = converted.start(data).batch.log_lower.exp().item()
        assert found == pytest.approx(total if data else 1.0, abs=1e-12)


def covers(data: bytes, before: bytes, piece: bytes) -> bool:
    return len(before) < len(data) and (before + piece).startswith(data)


def chain(lm, tokens) -> float:
    p = 1.0
    for n, token in enumerate(tokens):
        p *= lm.distribution(tokens[:n])[token]
    return p


FLAGS = ["single_word", "lstrip", "rstrip"]


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_that_match_more_than_the_token_are_refused_by_name(flag):
    inner = tokenizer([], MERGES)
    inner.add_tokens([AddedToken("word", normalized=False, **{flag: True})])
    tables = read_definition(json.loads(inner.to_str()))
    assert tables.encoder is None and flag in tables.reason and "'word'" in tables.reason
