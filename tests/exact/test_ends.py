"""What ends a text: the tokenizer's EOS, the lists of both configurations, a family's ends of
middles, the ids in a GGUF file, and what a caller adds."""

import itertools
import json

import pytest
import sentencepiece

import bytelm
from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact import TabularLM
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.lm.fim_templates import TEMPLATES

transformers = pytest.importorskip("transformers")
from benchmarks import fim_families  # noqa: E402
from benchmarks.fim_families import trained_sentencepiece  # noqa: E402
from tests.exact.test_starts import bigram_llama, metadata, tokenizer  # noqa: E402

TURNS = ["<bos>", "<eos>", "<end_of_turn>"]  # ids 256, 257, 258


def model(follows, *, eos=None, size=259):
    found = bigram_llama(size, follows)
    found.generation_config.eos_token_id = eos
    return found


def words(specials=TURNS):
    return tokenizer(specials, bos_token=specials[0], eos_token=specials[1])


@pytest.mark.parametrize("listed", [258, [257, 258]])
@pytest.mark.parametrize("saved", [False, True])
def test_generation_config_ends_a_text_by_a_number_or_a_list(listed, saved, tmp_path):
    """In a directory and as objects."""
    found = model({ord("x"): 258}, eos=listed)
    if saved:
        found.save_pretrained(tmp_path)
        words().save_pretrained(tmp_path)
        assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
        lm = bytelm.load(tmp_path)
    else:
        lm = bytelm.convert(found, words())
    assert bytelm.generate(lm, b"x", max_bytes=8, temperature=0) == b""
    assert lm.ends == {"<eos>", "<end_of_turn>"}


def test_ends_of_a_middle_end_it(tmp_path):
    """Code Llama's end of a middle is listed nowhere in its directory."""
    names = ["<s>", "</s>", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    lm = bytelm.convert(model({260: ord("x"), ord("x"): 261}, size=262), words(names))
    assert bytelm.infill(lm, prefix=b"f(", suffix=b")", max_bytes=8, temperature=0) == b"x"
    plain = bytelm.convert(
        model({260: ord("x"), ord("x"): 261}, size=262), words([*names[:5], "<E>"])
    )
    assert len(bytelm.infill(plain, prefix=b"f(", suffix=b")", max_bytes=8, temperature=0)) == 8


@pytest.mark.parametrize("end", [258, "<end_of_turn>"])
def test_a_caller_adds_ends_by_id_or_name(end, tmp_path):
    lm = bytelm.convert(model({ord("x"): 258}), words())
    assert len(bytelm.generate(lm, b"x", max_bytes=8, temperature=0)) == 8
    lm = bytelm.convert(model({ord("x"): 258}), words(), ends=[end])
    assert bytelm.generate(lm, b"x", max_bytes=8, temperature=0) == b""
    model({ord("x"): 258}).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    lm = bytelm.load(tmp_path, ends=[end])
    assert bytelm.generate(lm, b"x", max_bytes=8, temperature=0) == b""


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (300, "end id 300 is not one of the model's 259"),
        (-1, "end id -1"),
        (ord("a"), "is the text b'a', and only special tokens end"),
        ("<end_of_turns>", "did you mean '<end_of_turn>'"),
    ],
)
def test_ends_that_cannot_be_are_refused_by_name(end, message):
    with pytest.raises(BytelmError, match=message):
        bytelm.convert(model({}), words(), ends=[end])


def test_a_token_model_says_its_own_ends():
    with pytest.raises(BytelmError, match="leave `ends` out"):
        bytelm.convert(TabularLM(lambda h: [0.5, 0.5], [b"a", None], eos_ids={1}), ends=[1])


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({}, {256, 258}),  # <|endoftext|>, and the end of a turn by its name
        ({"eot_token_id": 257}, {256, 257, 258}),
        ({"eom_token_id": 257}, {256, 257, 258}),
        ({"fim_pad_token_id": 257}, {256, 257, 258}),
        ({"eos_token_id": 256, "eot_token_id": 256}, {256, 258}),
    ],
)
def test_a_gguf_file_ends_texts_by_all_its_ids_for_that(changes, ends):
    assert read_gguf_tokenizer(metadata(**changes)).eos_ids == ends


def test_an_end_of_a_gguf_file_that_is_no_token_is_named():
    with pytest.raises(CheckpointError, match="end id 999 is not one of its 259"):
        read_gguf_tokenizer(metadata(eot_token_id=999))


def test_markers_that_a_file_calls_normal_are_markers_all_the_same(tmp_path):
    """As in the tokenizer.model and GGUF files of Code Llama."""
    tokens = list(metadata()["tokenizer.ggml.tokens"])
    tokens[256:] = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    tables = read_gguf_tokenizer(
        metadata(tokens=tokens, token_type=[1] * len(tokens), bos_token_id=None, eos_token_id=None)
    )
    assert tables.specials == {name: 256 + i for i, name in enumerate(tokens[256:])}
    assert tables.eos_ids == {259} and tables.vocab_bytes[256:] == [None] * 4

    path = trained_sentencepiece(TEMPLATES["codellama"], tmp_path)
    normal = path.read_bytes()
    for name in TEMPLATES["codellama"].symbols:  # type 3 (control) -> 1 (normal)
        at = normal.index(name.encode()) + len(name.encode())
        kind = normal.index(b"\x18\x03", at)
        assert kind - at < 8
        normal = normal[: kind + 1] + b"\x01" + normal[kind + 2 :]
    (tmp_path / "normal.model").write_bytes(normal)
    found, control = read_sentencepiece(tmp_path / "normal.model"), read_sentencepiece(path)
    assert found.specials == control.specials and found.eos_ids == control.eos_ids
    text = b"f(x) <PRE> y"
    assert found.encoder.encode(text) == control.encoder.encode(text)


def test_a_gguf_file_of_code_llama_s_kind_infills_by_the_same_ids(tmp_path):
    """Its markers are normal tokens there, and it has scores in place of merges."""
    path = trained_sentencepiece(TEMPLATES["codellama"], tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    every = range(processor.get_piece_size())
    names = [processor.id_to_piece(i) for i in every]
    kinds = [
        2 if processor.is_unknown(i) else 6 if processor.is_byte(i) else 1 if "<" in name[1:] else
        3 if processor.is_control(i) else 1
        for i, name in zip(every, names, strict=True)
    ]  # fmt: skip
    tables = read_gguf_tokenizer(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": names,
            "tokenizer.ggml.scores": [processor.get_score(i) for i in every],
            "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.bos_token_id": processor.bos_id(),
            "tokenizer.ggml.eos_token_id": processor.eos_id(),
        }
    )
    assert {kinds[processor.piece_to_id(name)] for name in TEMPLATES["codellama"].symbols} == {1}
    end = processor.piece_to_id("\u2581<EOT>")
    assert tables.eos_ids == {processor.eos_id(), end}
    text = " f(x) <PRE> y"
    assert tables.encoder.encode(b" " + text.encode()) == processor.encode(text)
    reference = fim_families.codellama(TEMPLATES["codellama"]).reference
    for order, (prefix, suffix) in itertools.product(("psm", "spm"), fim_families.PAIRS[::7]):
        wanted = tuple(reference(TEMPLATES["codellama"], order, prefix, suffix))
        asked = fim_families.questions(tables, order, prefix.encode(), suffix.encode())
        assert wanted in asked
