"""Vocabularies of GGUF files: SentencePiece's, which keep scores and no merges, and the names of
pre-tokenizers; what is text among pieces that look like markers."""

import pytest
import sentencepiece

from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer
from bytelm.exact.tokenizers.known_expressions import EXPRESSIONS
from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.exact.tokenizers.tables import is_marker

TEXT = "a table of words, a table of tables; the words are able.\n" * 40 + "é \ufffd 你"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "text").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "m"), vocab_size=330,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, user_defined_symbols=["<table>", "\u2581\u2581\u2581"],
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return folder / "m.model"


def metadata(processor):
    size = processor.get_piece_size()
    kinds = []
    for i in range(size):
        kind = 2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 1
        piece = processor.id_to_piece(i)
        kinds.append(6 if processor.is_byte(i) else 4 if piece in ("<table>", "▁▁▁") else kind)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in range(size)],
        "tokenizer.ggml.scores": [processor.get_score(i) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


TEXTS = [
    "a table of words", "the <table> of tables", "a    b", "   a", "é你\ufffd\U0001f600", "\n\n",
    "x\ufffdy", "<0x0A>", "<table><table", "words\tare able",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["model", "gguf"])
def test_a_vocabulary_of_scores_encodes_as_the_library_does(trained, kind):
    """Pieces that the user defined come first; U+FFFD is a character like any other."""
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained))
    tables = read_sentencepiece(trained) if kind == "model" else None
    tables = tables or read_gguf_tokenizer(metadata(theirs))
    assert tables.start_ids == [1] and tables.eos_ids == {2}
    for text in TEXTS:
        ids = tables.require_encoder().encode(b" " + text.encode())
        assert ids == theirs.encode(text), text
        assert b"".join(tables.vocab_bytes[i] for i in ids) == b" " + text.encode()


def test_a_bad_byte_is_no_character(trained):
    encoder = read_sentencepiece(trained).require_encoder()
    piece, byte = encoder.encode("\ufffd".encode()), encoder.encode(b"\xff")
    assert len(piece) == len(byte) == 1 and piece != byte


def test_a_file_without_scores_is_refused_in_canonical_modes(trained):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained))
    tables = read_gguf_tokenizer(metadata(theirs) | {"tokenizer.ggml.scores": []})
    assert b" table" in tables.vocab_bytes or b"table" in tables.vocab_bytes
    with pytest.raises(BytelmError, match="no scores of its pieces"):
        tables.require_encoder()


@pytest.mark.parametrize("name", ["falcon", "deepseek-llm", "deepseek-v3", "bloom", "tekken"])
def test_known_expressions_can_be_followed(name):
    spans = expression_spans(*EXPRESSIONS[name]).spans("a1234 (b).\r\n 你好é Ω1\n\n")
    assert spans[0][0] == 0 and spans[-1][1] == 21


@pytest.mark.parametrize(
    "content, expected",
    [
        ("<|fim_prefix|>", True), ("<｜User｜>", True), ("[INST]", True), ("<fim_prefix>", True),
        ("<table>", False), ("<h1/>", False), ("</blockquote>", False), ("    ", False),
        ("[A-Z]", False), ("<0x0A>", False), ("a<|b|>", False),
    ],
)  # fmt: skip
def test_only_what_is_spelled_as_a_marker_is_one(content, expected):
    assert is_marker(content) is expected
