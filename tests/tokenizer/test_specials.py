"""No bytes ever encode to a special token: any names, any order of training, saving and loading, in
both libraries."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bytelm.errors import BytelmError, DataError
from bytelm.exact.tokenizers.tokenizer_json import read_definition
from bytelm.tokenizer import SPECIAL_TOKENS, BinaryBPE, files

# names that are spelled like bytes, like tokens, like the mark that sets names apart, like no text
NAMES = ["a", "ab", "abab", " ", "\n", "é", "\ue0ffab", "\ue0ff\ue0ffab", "<|end|>", "一", "\0"]


def both_libraries(bpe: BinaryBPE, texts: list[bytes], layout: str) -> None:
    """The ids of every text, here and in Hugging Face, from memory and from a file."""
    stored = bpe.to_json(layout=layout)
    again = BinaryBPE(files.from_json(json.loads(stored)))
    assert again.specials == bpe.specials and again.token_bytes == bpe.token_bytes
    assert again.fingerprint == bpe.fingerprint
    hf = Tokenizer.from_str(stored.decode())
    assert hf.get_vocab_size() == bpe.vocab_size
    for name, number in bpe.specials.items():  # a name that is also a token's is set apart by marks
        spelt = hf.id_to_token(number)
        assert spelt.endswith(name) and not spelt.removesuffix(name).strip("\ue0ff")
        assert hf.token_to_id(spelt) == number
    for text in texts:
        ids = bpe.encode(text).tolist()
        assert not set(ids) & set(bpe.specials.values())
        assert bpe.decode(ids) == text
        assert again.encode(text).tolist() == ids
        if layout == "latin-1":
            assert hf.encode(text.decode("latin-1")).ids == ids
        else:
            try:
                assert hf.encode(text.decode("utf-8")).ids == ids
            except UnicodeDecodeError:  # this layout takes text only
                pass


@settings(deadline=None, max_examples=80)
@given(
    names=st.lists(st.sampled_from(NAMES) | st.text("ab<|>é", min_size=1, max_size=5), unique=True),
    pieces=st.lists(st.sampled_from(NAMES) | st.text("ab<|>", max_size=6), min_size=1, max_size=6),
    repeats=st.integers(2, 30),
    merges=st.integers(0, 12),
    layout=st.sampled_from(files.LAYOUTS),
    cut=st.integers(0, 12),
)
@example(
    names=["ab", "\ue0ffab"], pieces=["ab"], repeats=9, merges=1, layout=files.LAYOUTS[0], cut=0
)
def test_no_bytes_ever_encode_to_a_special(names, pieces, repeats, merges, layout, cut):
    text = "".join(pieces).encode() * repeats + "".join(names).encode() * repeats + b"ab"
    for ids in range(256 + merges, 255, -1):  # as many merges as the data has
        try:
            size = ids + len(names)
            bpe = BinaryBPE.train([text], [size], special_tokens=names)[size]
            break
        except BytelmError:
            continue
    texts = [text[:200], b"", *(name.encode() for name in names), "".join(names).encode()]
    both_libraries(bpe, texts, layout)
    smaller = bpe.truncate(max(256 + len(names), bpe.vocab_size - cut))
    both_libraries(smaller, texts, layout)
    again = BinaryBPE(files.from_json(json.loads(bpe.to_json(layout=layout))))
    both_libraries(again.truncate(smaller.vocab_size), texts, layout)


@pytest.mark.parametrize("layout", files.LAYOUTS)
def test_data_full_of_a_special_gives_the_same_ids_before_saving_after_loading_and_there(
    tmp_path, layout
):
    """The ids were [104, 268] before saving and [104, 1] after: 1 is the end of a document."""
    bpe = spelling(b"<|end|>")
    assert bpe.encode(b"a<|end|>").tolist() == [104, 268]
    bpe.save(tmp_path, layout=layout)
    assert BinaryBPE.load(tmp_path).encode(b"a<|end|>").tolist() == [104, 268]
    hf = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert hf.encode("a<|end|>").ids == [104, 268]
    assert bpe.special("<|end|>") == 1 and hf.id_to_token(1).endswith("<|end|>")


def spelling(name: bytes) -> BinaryBPE:
    """A vocabulary with a token of these bytes, merged from the left."""
    merges = [(254 + i if i > 1 else name[0], byte) for i, byte in enumerate(name) if i]
    return BinaryBPE.from_merges(np.array(merges, np.int64))


def test_a_special_named_like_a_byte_is_saved_and_loaded(tmp_path):
    bpe = BinaryBPE.train([b"abab"], [258], special_tokens=("a",))[258]
    bpe.save(tmp_path)
    again = BinaryBPE.load(tmp_path)
    assert again.specials == {"a": 0} and again.encode(b"a").tolist() == [98]


@pytest.mark.parametrize("names", [("a", "a"), ("",), ("x", "")])
def test_specials_must_differ_and_have_names(names):
    with pytest.raises(BytelmError, match="must differ, and each have a name"):
        BinaryBPE.from_merges(np.zeros((0, 2)), special_tokens=names)


def published(bpe: BinaryBPE) -> dict:
    """The file as others write it, with specials as added tokens."""
    spell = [bpe.codec.token(i) for i in range(len(bpe.codec))]
    return json.loads(files.identity(bpe._stored, spell))


def test_published_files_are_read_and_saved_without_their_fault():
    bpe = BinaryBPE.train([b"xyz" * 9], [265])[265]
    value = published(bpe)
    assert [item["content"] for item in value["added_tokens"]] == list(SPECIAL_TOKENS)
    assert Tokenizer.from_str(json.dumps(value)).encode("a<|end|>").ids == [104, 1]
    both_libraries(BinaryBPE(files.from_json(value)), [b"a<|end|>"], "byte-level")


def test_an_old_file_whose_merges_make_a_special_is_refused_by_name():
    value = published(spelling(b"<|end|>"))
    vocabulary = value["model"]["vocab"]
    vocabulary.pop("\ue0ff<|end|>")
    vocabulary["<|end|>"] = 1  # as it was overwritten
    with pytest.raises(DataError, match=r"makes the special token '<\|end\|>'.*train .* again"):
        files.from_json(value)


def test_the_exact_converter_knows_our_specials_as_such():
    bpe = spelling(b"<|end|>")
    tables = read_definition(json.loads(bpe.to_json()))
    assert tables.vocab_bytes == bpe.token_bytes
    assert tables.specials == bpe.specials


def test_the_fingerprint_is_that_of_runs_written_before():
    """SHA-256 of the file as version 0.1 wrote it."""
    from hashlib import sha256

    bpe = BinaryBPE.train([b"xyz" * 9], [265])[265]
    assert bpe.fingerprint == sha256(files.dump(published(bpe))).hexdigest()
