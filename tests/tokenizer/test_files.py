"""tokenizer.json in both published layouts, damaged files, exports, and the committed family."""

import base64
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bytelm.errors import BytelmError, DataError
from bytelm.tokenizer import SPECIAL_TOKENS, BinaryBPE, files
from bytelm.tokenizer.sentencepiece_model import as_text

from .conftest import CORPORA

FAMILY = Path(__file__).parents[2] / "tokenizers"


@pytest.fixture(scope="module")
def bpe() -> BinaryBPE:
    return BinaryBPE.train(list(CORPORA.values()), [600])[600]


@pytest.mark.parametrize("layout", files.LAYOUTS)
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_saved_is_what_is_loaded(bpe, tmp_path, layout, compress):
    path = bpe.save(tmp_path, layout=layout, compress=compress)
    for place in (path, tmp_path):
        again = BinaryBPE.load(place)
        assert again.token_bytes == bpe.token_bytes and again.specials == bpe.specials
    beside = [] if compress else [tmp_path / "tokenizer_config.json"]
    assert sorted(tmp_path.iterdir()) == sorted([path, *beside])


def test_special_tokens_come_first_as_in_the_published_family(bpe):
    assert bpe.specials == {name: i for i, name in enumerate(SPECIAL_TOKENS)}
    assert bpe.token_bytes[:7] == [None] * 7
    assert bpe.token_bytes[7:263] == [bytes([i]) for i in range(256)]


def relabelled(bpe: BinaryBPE, layout: str) -> dict:
    """The same vocabulary in the older layout: specials last, merges as strings."""
    value = json.loads(bpe.to_json(layout=layout))
    model = value["model"]
    model["vocab"] = {word: (i - 7) % 600 for word, i in model["vocab"].items()}
    for item in value["post_processor"]["special_tokens"].values():
        item["ids"] = [(i - 7) % 600 for i in item["ids"]]
    return value


def test_specials_with_the_last_ids_are_read(bpe):
    old = BinaryBPE(files.from_json(relabelled(bpe, "latin-1")))
    assert old.specials["<|start|>"] == 593 and old.vocab_size == 600
    data = CORPORA["executable"][:3000]
    assert (old.encode(data) + 7).tolist() == bpe.encode(data).tolist()
    assert old.decode(old.encode(data)) == data


def test_quotation_marks_moved_to_private_characters_are_read(bpe):
    text = (
        bpe.to_json(layout="latin-1").decode().replace("\xab", "\ue000").replace("\xbb", "\ue001")
    )
    assert BinaryBPE(files.from_json(json.loads(text))).token_bytes == bpe.token_bytes


def test_merges_written_as_strings_are_read(bpe):
    value = json.loads(bpe.to_json())
    value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]
    assert BinaryBPE(files.from_json(value)).token_bytes == bpe.token_bytes


def test_tokens_no_merge_makes_are_decoded_and_never_encoded(bpe):
    value = json.loads(bpe.to_json(layout="latin-1"))
    value["model"]["vocab"]["glued together"] = 600
    glued = BinaryBPE(files.from_json(value))
    assert glued.decode([600, 7]) == b"glued together\0"
    assert 600 not in glued.encode(b"glued together")


def test_the_latin_1_layout_takes_raw_bytes_in_hugging_face(bpe):
    hf = Tokenizer.from_str(bpe.to_json(layout="latin-1").decode())
    data = bytes(range(256)) * 3
    ids = hf.encode(data.decode("latin-1")).ids
    assert ids == bpe.encode(data).tolist()
    assert hf.decode(ids, skip_special_tokens=False).encode("latin-1") == data


def test_tiktoken_reads_the_ranks(bpe, tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    lines = bpe.to_tiktoken().splitlines()
    ranks = {base64.b64decode(word): int(rank) for word, rank in map(bytes.split, lines)}
    other = tiktoken.Encoding("b", pat_str="(?s:.)", mergeable_ranks=ranks, special_tokens={})
    data = CORPORA["executable"][:2000]
    assert [i + 7 for i in other._encode_single_piece(data)] == bpe.encode(data).tolist()


@pytest.fixture(scope="module")
def exported(bpe) -> dict:
    """Vocabularies and what sentencepiece makes of their files."""
    old = BinaryBPE(files.from_json(relabelled(bpe, "latin-1")))
    made = {"small": bpe, "other ids": old, "family": BinaryBPE.load(FAMILY / "binary-4k")}
    read = sentencepiece.SentencePieceProcessor
    return {n: (b, read(model_proto=b.to_sentencepiece())) for n, b in made.items()}


@given(
    data=st.binary(max_size=400)
    | st.text("ab\0", max_size=200).map(str.encode)
    | st.integers(0, 28_000).map(lambda at: CORPORA["executable"][at : at + 2000])
    | st.sampled_from([bytes(3000), b"a" * 999, CORPORA["overlaps"][:5000], b"\r\n \t\x0b\x85"])
)
def test_sentencepiece_splits_any_bytes_the_same(exported, data):
    for name, (bpe, processor) in exported.items():
        assert processor.encode(as_text(data)) == bpe.encode(data).tolist(), name


def test_sentencepiece_reads_names_and_spells_bytes(exported):
    bpe, processor = exported["small"]
    assert processor.piece_to_id("<|end|>") == bpe.special("<|end|>")
    assert processor.is_control(0) and processor.is_unknown(bpe.special("<|unk|>"))
    data = bytes(range(256))
    assert processor.decode(bpe.encode(data).tolist()) == as_text(data)


def test_sentencepiece_is_refused_what_it_would_split_otherwise(bpe):
    unreachable = np.array([[97, 98], [98, 99], [97, 257]])
    with pytest.raises(BytelmError, match="reachable"):
        BinaryBPE.from_merges(unreachable).to_sentencepiece()
    with pytest.raises(BytelmError, match="did you mean '<|unk|>'"):
        bpe.to_sentencepiece(unknown="<unk>")
    value = json.loads(bpe.to_json())
    for item in value["post_processor"]["special_tokens"].values():
        item["ids"] = [i or 5000 for i in item["ids"]]
    value["model"]["vocab"]["<|start|>"] = 5000
    with pytest.raises(BytelmError, match="gaps"):
        BinaryBPE(files.from_json(value)).to_sentencepiece()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a tokenizer file"),
        (b"{", "not a tokenizer file"),
        (b"\xff\xfe", "not a tokenizer file"),
        (gzip.compress(b"{}", mtime=0)[:-4], "not a tokenizer file"),
        (b"{}", "only BPE models"),
        (b'{"model": {"type": "Unigram", "vocab": []}}', "only BPE models are read"),
        (b'{"model": {"vocab": {"a": 0}, "merges": []}}', "cannot encode every byte"),
    ],
)
def test_damaged_and_foreign_files_are_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        BinaryBPE.load(path)


def test_a_merge_of_unknown_tokens_is_refused(bpe):
    value = json.loads(bpe.to_json(layout="latin-1"))
    value["model"]["merges"].insert(0, ["ab", "zq"])
    with pytest.raises(DataError, match="not there yet"):
        files.from_json(value)


def test_a_failed_write_leaves_nothing(bpe, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        bpe.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_layouts_name_the_nearest(bpe):
    with pytest.raises(BytelmError, match="did you mean 'latin-1'"):
        bpe.to_json(layout="latin1")


def test_the_committed_family_is_nested_and_hugging_face_reads_it(tmp_path):
    large = BinaryBPE.load(FAMILY / "binary-64k")
    data = (FAMILY.parent / "data/executables/wrapt/manylinux2014_x86_64.so").read_bytes()[:50_000]
    for name, size in {"4k": 4096, "8k": 8192, "16k": 16384, "32k": 32768}.items():
        small = BinaryBPE.load(FAMILY / f"binary-{name}")
        assert small.token_bytes == large.token_bytes[:size]
    hf = Tokenizer.from_str(small.to_json(layout="latin-1").decode())
    ids = small.encode(data)
    assert hf.encode(data.decode("latin-1")).ids == ids.tolist()
    assert len(data) / len(ids) > 1.8
    plain = Tokenizer.from_file(str(FAMILY / "binary-4k/tokenizer.json"))
    assert plain.encode("Grüße").ids == large.truncate(4096).encode("Grüße".encode()).tolist()


@pytest.mark.slow
def test_transformers_loads_the_file_with_the_same_ids(bpe, tmp_path):
    transformers = pytest.importorskip("transformers")
    path = bpe.save(tmp_path)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    text = "The quick brown fox; Байты"
    assert fast.encode(text) == bpe.encode(text.encode()).tolist()
