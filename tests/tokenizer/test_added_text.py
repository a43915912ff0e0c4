"""Added tokens of a `tokenizer.json` that are text, and files that are more than merges."""

import json
import random

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from bytelm import BinaryBPE
from bytelm.errors import BytelmError, DataError
from bytelm.tokenizer.stream import StreamEncoder
from bytelm.tokenizer.vocabulary import token_vocab

ADDED = ["  ", "    ", "ab", "abba"]
MERGES = [("b", "a"), ("ba", "ba"), ("\u0120", "a")]  # the last: a blank and an a
SPECIALS = ["<|start|>", "<|end|>", "<|pad|>"]


def tokenizer(*, added=ADDED, merges=MERGES, **model) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(a + b for a, b in merges)]
    vocab = {name: i for i, name in enumerate(names)}
    found = Tokenizer(models.BPE(vocab=vocab, merges=merges, **model))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    found.add_tokens([AddedToken(text, normalized=False) for text in added])
    return found


def loaded(reference: Tokenizer, folder, **options) -> BinaryBPE:
    reference.save(str(folder / "tokenizer.json"))
    return BinaryBPE.load(folder, **options)


def texts(count: int) -> list[str]:
    draw = random.Random(5)
    return ["".join(draw.choices("ab \n\u00e9", k=draw.randrange(20))) for _ in range(count)]


def test_ids_are_those_of_the_library_and_nothing_is_lost(tmp_path):
    reference = tokenizer()
    bpe = loaded(reference, tmp_path)
    assert set(bpe.specials) == set(SPECIALS)
    assert set(bpe.added) == {text.encode() for text in ADDED}
    for text in ["", "  ", "if x:\n    return\n      y", *texts(300)]:
        ids, offsets = bpe.encode_with_offsets(text.encode())
        assert ids.tolist() == reference.encode(text).ids == bpe.encode(text.encode()).tolist()
        assert bpe.decode(ids) == text.encode()
        parts = [bpe.token_bytes[i] for i in ids.tolist()]
        assert [text.encode()[a:b] for a, b in zip(offsets, offsets[1:], strict=False)] == parts


def test_they_are_kept_when_saved_and_tell_vocabularies_apart(tmp_path):
    bpe = loaded(tokenizer(), tmp_path)
    bpe.save(tmp_path / "again")
    again, bare = BinaryBPE.load(tmp_path / "again"), loaded(tokenizer(added=[]), tmp_path)
    library = Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    for text in texts(100):
        assert again.encode(text.encode()).tolist() == bpe.encode(text.encode()).tolist()
        assert library.encode(text).ids == bpe.encode(text.encode()).tolist()
    assert again.fingerprint == bpe.fingerprint != bare.fingerprint
    assert token_vocab(again).size == len(SPECIALS) + 256 + len(MERGES) + len(ADDED)


def test_what_has_no_place_for_them_says_so(tmp_path):
    bpe = loaded(tokenizer(), tmp_path)
    for refused in (bpe.to_tiktoken, bpe.to_sentencepiece, lambda: bpe.truncate(260)):
        with pytest.raises(BytelmError, match="added tokens"):
            refused()
    with pytest.raises(BytelmError, match="added tokens"):
        StreamEncoder(bpe)
    with pytest.raises(BytelmError, match="no id 400"):
        bpe.decode([400])


def changed(reference: Tokenizer, **parts) -> Tokenizer:
    for name, value in parts.items():
        setattr(reference, name, value)
    return reference


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
MORE = {
    "ByteLevel": lambda: changed(tokenizer(), pre_tokenizer=pre_tokenizers.ByteLevel(False)),
    "Split, ByteLevel": lambda: changed(
        tokenizer(),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\d"), "isolated"), BYTE_LEVEL]
        ),
    ),
    "add_prefix_space": lambda: changed(
        tokenizer(), pre_tokenizer=pre_tokenizers.ByteLevel(True, use_regex=False)
    ),
    "NFC": lambda: changed(tokenizer(), normalizer=normalizers.NFC()),
    "dropout": lambda: tokenizer(dropout=0.1),
    "end_of_word_suffix": lambda: tokenizer(merges=[], end_of_word_suffix="</w>"),
}


@pytest.mark.parametrize("name", MORE)
def test_a_file_that_is_more_than_merges_is_refused_by_name(name, tmp_path):
    with pytest.raises(DataError, match=name):
        loaded(MORE[name](), tmp_path)
    assert loaded(MORE[name](), tmp_path, merges_only=True).encode(b"baba").tolist()


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_an_added_token_found_by_other_rules_is_refused_by_name(flag, tmp_path):
    reference = tokenizer()
    reference.add_tokens([AddedToken("word", **{flag: True}, normalized=False)])
    with pytest.raises(DataError, match=f"'word'.*{flag}"):
        loaded(reference, tmp_path)


def test_whole_texts_that_are_tokens_by_no_merge_are_refused(tmp_path):
    value = json.loads(tokenizer().to_str())
    value["model"]["ignore_merges"] = True
    value["model"]["vocab"]["zz"] = 999
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match="ignore_merges"):
        BinaryBPE.load(tmp_path)
