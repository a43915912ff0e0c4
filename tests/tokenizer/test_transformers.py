"""`transformers.AutoTokenizer` on our folders: roles, padding, and no text that is a special."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.tokenizer import BinaryBPE
from bytelm.tokenizer.bpe import SPECIAL_TOKENS
from bytelm.tokenizer.files import LAYOUTS

transformers = pytest.importorskip("transformers")

# "<|", "|>" and the letters between are merged, so that tokens of bytes begin to spell specials
MERGES = [(60, 124), (124, 62), (101, 110), (258, 100), (97, 98)]
TEXTS = st.text() | st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "a", "b", "<|", "end", "|>", "\x00", "é", "\ue0ff"])
).map("".join)


@pytest.fixture(scope="module", params=LAYOUTS)
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    bpe = BinaryBPE.from_merges(MERGES)
    bpe.save(folder, layout=request.param)
    return bpe, transformers.AutoTokenizer.from_pretrained(folder), request.param


def test_the_end_and_padding_are_known(both):
    bpe, theirs, _ = both
    assert theirs.eos_token_id == bpe.special("<|end|>")
    assert theirs.pad_token_id == bpe.special("<|pad|>")
    assert theirs.bos_token_id == bpe.special("<|start|>")
    ids = theirs(["ab", "abab"], padding=True)["input_ids"]
    assert ids[0] == [*bpe.encode(b"ab"), theirs.pad_token_id]
    assert theirs.decode([*ids[1], theirs.eos_token_id], skip_special_tokens=True) == "abab"
    assert len(theirs) == bpe.vocab_size


@given(TEXTS)
def test_no_text_encodes_to_a_special_and_ids_are_ours(both, text):
    bpe, theirs, layout = both
    if layout == "latin-1":
        text = text.encode().decode("latin-1")  # raw bytes, as that layout takes them
    data = text.encode("utf-8" if layout == "byte-level" else "latin-1")
    ids = theirs.encode(text)
    assert ids == bpe.encode(data).tolist()
    assert not set(ids) & set(bpe.specials.values())
    assert theirs.decode(ids) == text


def test_a_vocabulary_without_specials_is_read_too(tmp_path):
    bpe = BinaryBPE.from_merges(MERGES, special_tokens=())
    bpe.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token is None and theirs.encode("<|end|>") == bpe.encode(b"<|end|>").tolist()


def test_latin_1_text_is_no_road_for_bytes_into_a_byte_level_file(tmp_path):
    """As docs/binary-bpe.md says: the ids differ; `BinaryBPE.load(...).encode` is the road."""
    bpe = BinaryBPE.from_merges(MERGES)
    bpe.save(tmp_path)
    data = b"ab\xff"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(data.decode("latin-1")) != bpe.encode(data).tolist()
    assert BinaryBPE.load(tmp_path).encode(data).tolist() == bpe.encode(data).tolist()
