"""Encoding is exact and equals Hugging Face's for any bytes, with either encoder and in pieces."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bytelm.errors import BytelmError
from bytelm.tokenizer import BinaryBPE, files
from bytelm.tokenizer.codec import Codec
from bytelm.tokenizer.stream import StreamEncoder

from .conftest import CORPORA, naive_encode


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, BinaryBPE]:
    """One per corpus, and one of all together."""
    everything = {"all": list(CORPORA.values()), "overlaps": [CORPORA["overlaps"]]}
    found = {}
    for name, documents in everything.items():
        found[name] = BinaryBPE.train(documents, [263 + 50])[263 + 50]
    found["large"] = BinaryBPE.train(everything["all"], [3000])[3000]
    found["short"] = BinaryBPE.train(everything["all"], [2000], max_token_length=5)[2000]
    return found


@pytest.fixture(scope="module")
def hugging_face(vocabularies) -> dict[tuple[str, str], Tokenizer]:
    read = {}
    for name, bpe in vocabularies.items():
        for layout in files.LAYOUTS:
            read[name, layout] = Tokenizer.from_str(bpe.to_json(layout=layout).decode())
            read[name, layout].encode_special_tokens = True
    return read


def hf_ids(tokenizer: Tokenizer, layout: str, data: bytes) -> list[int]:
    if layout == "latin-1":
        return tokenizer.encode(data.decode("latin-1")).ids
    letters = files.alphabet(layout)  # its encode takes text only; its model takes the letters
    return [token.id for token in tokenizer.model.tokenize("".join(letters[b] for b in data))]


some_bytes = (
    st.binary(max_size=300)
    | st.text("ab", max_size=200).map(str.encode)
    | st.builds(
        lambda at, size: CORPORA["executable"][at : at + size],
        st.integers(0, 28_000),
        st.integers(0, 2000),
    )
    | st.sampled_from([b"", b"\0", b"<|start|><|pad|>", bytes(5000), b"a" * 999])
)


@given(data=some_bytes, name=st.sampled_from(["all", "overlaps", "large", "short"]))
def test_decoding_gives_back_any_bytes(vocabularies, data, name):
    bpe = vocabularies[name]
    assert bpe.decode(bpe.encode(data)) == data


@given(
    data=some_bytes,
    name=st.sampled_from(["all", "overlaps", "large", "short"]),
    layout=st.sampled_from(files.LAYOUTS),
)
def test_ids_equal_hugging_face_for_any_bytes(vocabularies, hugging_face, data, name, layout):
    assert vocabularies[name].encode(data).tolist() == hf_ids(
        hugging_face[name, layout], layout, data
    )


@cache
def family(name: str) -> tuple[BinaryBPE, Tokenizer]:
    bpe = BinaryBPE.load(Path(__file__).parents[2] / "tokenizers" / name)
    tokenizer = Tokenizer.from_str(bpe.to_json(layout="latin-1").decode())
    tokenizer.encode_special_tokens = True
    return bpe, tokenizer


@cache
def real_executable() -> bytes:
    return Path(sys.executable).read_bytes()[: 8 << 20]


real_bytes = some_bytes | st.builds(
    lambda place, size: real_executable()[int(place * len(real_executable())) :][:size],
    st.floats(0, 1),
    st.integers(0, 20_000),
)


@given(data=real_bytes, name=st.sampled_from(["binary-4k", "binary-16k", "binary-64k"]))
@settings(max_examples=150)
def test_the_family_splits_executables_as_hugging_face_does(data, name):
    bpe, tokenizer = family(name)
    assert bpe.encode(data).tolist() == tokenizer.encode(data.decode("latin-1")).ids


@given(data=st.text(max_size=200))
def test_hugging_face_splits_text_as_we_split_its_utf8(vocabularies, hugging_face, data):
    ids = hugging_face["large", "byte-level"].encode(data).ids
    assert vocabularies["large"].encode(data.encode()).tolist() == ids


@given(data=some_bytes)
def test_both_encoders_agree_with_the_definition(vocabularies, data):
    codec = vocabularies["overlaps"].codec
    slow = Codec(codec.merges)
    slow.__dict__["exact"] = False
    assert codec.exact
    assert codec.encode(data).tolist() == naive_encode(codec.merges, data)
    assert slow.encode(data).tolist() == naive_encode(codec.merges, data)


@given(data=some_bytes, cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_a_stream_cut_anywhere_gives_the_ids_of_the_whole(vocabularies, data, cuts):
    for bpe in (vocabularies["overlaps"], vocabularies["large"]):
        encoder, ids = StreamEncoder(bpe, block=64), []
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for start, end in zip(edges, edges[1:], strict=False):
            ids += encoder.feed(data[start:end]).tolist()
        assert ids + encoder.finish().tolist() == bpe.encode(data).tolist()


def test_a_stream_holds_back_little():
    data, held = CORPORA["executable"], []
    bpe = BinaryBPE.train([data], [600], max_token_length=16)[600]
    encoder = StreamEncoder(bpe, block=4096)
    for start in range(0, len(data), 1000):
        encoder.feed(data[start : start + 1000])
        held.append(encoder.pending)
    assert max(held) < 4096 and min(held[5:]) < 1000


def test_a_vocabulary_with_an_unreachable_token_is_encoded_by_rank():
    # "abc" is merged from a+bc, but bc is only ever made after ab took the b
    codec = Codec(np.array([[97, 98], [98, 99], [97, 257]]))
    assert not codec.exact
    assert codec.encode(b"abc").tolist() == [256, 99] == naive_encode(codec.merges, b"abc")


def test_a_merge_listed_twice_keeps_its_first_rank():
    codec = Codec(np.array([[97, 98], [98, 99], [97, 98]]))
    assert not codec.exact
    assert codec.encode(b"abcbc").tolist() == [256, 99, 257]


def test_offsets_cut_the_data_into_the_tokens(vocabularies):
    bpe, data = vocabularies["large"], CORPORA["executable"][:5000]
    ids, offsets = bpe.encode_with_offsets(data)
    parts = [data[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    assert parts == [bpe.token_bytes[i] for i in ids]


def test_a_corpus_becomes_one_compact_array(vocabularies):
    bpe, documents = vocabularies["large"], [b"error", b"", CORPORA["text"][:999]]
    for threads in (1, 2):
        corpus = bpe.encode_corpus(iter(documents), threads=threads)
        assert corpus.ids.dtype == np.uint16
        assert corpus.byte_offsets.tolist() == [0, 5, 5, 1004]
        for i, data in enumerate(documents):
            part = corpus.ids[corpus.offsets[i] : corpus.offsets[i + 1]]
            assert bpe.decode(part) == data


def test_special_tokens_decode_to_nothing_and_unknown_ids_are_refused(vocabularies):
    bpe = vocabularies["all"]
    assert bpe.decode([bpe.special("<|start|>"), 7 + 65, bpe.special("<|end|>")]) == b"A"
    for wrong in (-1, bpe.vocab_size, 1 << 40):
        with pytest.raises(BytelmError, match="no id"):
            bpe.decode([7, wrong])
    with pytest.raises(BytelmError, match=r"did you mean '<\|start\|>'"):
        bpe.special("<|star|>")
    with pytest.raises(BytelmError, match="integers"):
        bpe.decode(np.array([1.5]))


def test_smaller_vocabularies_are_the_beginning_of_larger_ones(vocabularies):
    large = vocabularies["large"]
    family = BinaryBPE.train(list(CORPORA.values()), [3000, 500])
    assert family[500].token_bytes == large.token_bytes[:500]
    assert large.truncate(500).token_bytes == family[500].token_bytes


def test_a_vocabulary_the_data_cannot_support_is_not_filled_up():
    with pytest.raises(BytelmError, match="support a vocabulary of 264, not 300"):
        BinaryBPE.train([b"abab"], [300])
    with pytest.raises(BytelmError, match="at least 263"):
        BinaryBPE.train([b"abab"], [200])
