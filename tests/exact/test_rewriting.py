"""Tokenizers that rewrite a text before they encode it: announced in mode `all`, whose law is that
of the model's tokens, and refused by name in the canonical modes."""

import json

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import bytelm
from bytelm.errors import BytelmError
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.exact.tokenizers.tokenizer_json import read_definition

TEXT = "The quick brown fox jumps over the lazy dog, and one more fox. \u00e9\u00e8 done\n" * 40
TEXTS = ("fox", "a  b", "a\nb", "\ufb01sh", "  ab ", "e\u0301", "\u2003", "dog.")


def trained(folder, *, rules, extra):
    (folder / "text").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "t"), vocab_size=320,
        model_type="unigram", byte_fallback=True, normalization_rule_name=rules,
        remove_extra_whitespaces=extra, minloglevel=3, hard_vocab_limit=False,
    )  # fmt: skip
    path = folder / "t.model"
    return read_sentencepiece(path), sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.mark.parametrize(
    ("rules", "extra", "expected"),
    [
        ("identity", False, ()),
        ("identity", True, ("remove_extra_whitespaces",)),
        ("nmt_nfkc", False, ("nmt_nfkc",)),
        ("nmt_nfkc_cf", True, ("nmt_nfkc_cf", "remove_extra_whitespaces")),
    ],
)
def test_sentencepiece_files_say_what_rewrites_texts(rules, extra, expected, tmp_path):
    tables, processor = trained(tmp_path, rules=rules, extra=extra)
    assert tables.rewriting == expected
    kept = [processor.decode(processor.encode(text)) == text for text in TEXTS]
    assert all(kept) == (not expected)  # the library itself loses what it rewrites
    if not expected:
        for text in TEXTS:
            assert tables.encoder.encode(b" " + text.encode()) == processor.encode(text)
        assert tables.require_encoder() is tables.encoder
    else:
        with pytest.raises(BytelmError, match=f"{expected[0]}.* rewrites texts; use mode"):
            tables.require_encoder()


def unigram(normalizer) -> Tokenizer:
    """Letters, single bytes and three words, behind a normaliser."""
    words = ["\u2581", "\u2581fox", "fox", *"abcdefghijklmnopqrstuvwxyz"]
    single = [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    vocab = [("<s>", 0.0), ("<unk>", 0.0), *single, *((word, -3.0) for word in words)]
    found = Tokenizer(models.Unigram(vocab=vocab, unk_id=1, byte_fallback=True))
    if normalizer is not None:
        found.normalizer = normalizer
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    found.decoder = decoders.Metaspace(prepend_scheme="never")
    found.add_special_tokens(["<s>"])
    return found


REWRITING = {
    "NFKC": normalizers.NFKC(),
    "Lowercase": normalizers.Lowercase(),
    "Strip": normalizers.Strip(),
    "Nmt": normalizers.Nmt(),
    "Replace": normalizers.Replace(Regex(" {2,}"), " "),
}


@pytest.mark.parametrize("name", REWRITING)
def test_normalisers_of_tokenizer_files_are_named(name):
    definition = json.loads(unigram(REWRITING[name]).to_str())
    assert read_definition(definition).rewriting == (name,)
    both = normalizers.Sequence([REWRITING[name], normalizers.Replace(" ", "\u2581")])
    assert read_definition(json.loads(unigram(both).to_str())).rewriting == (name,)


@pytest.mark.parametrize("normalizer", [None, normalizers.Replace(" ", "\u2581")])
def test_making_blanks_visible_rewrites_nothing(normalizer):
    assert read_definition(json.loads(unigram(normalizer).to_str())).rewriting == ()


def test_a_model_behind_one_is_announced_and_its_law_is_that_of_its_tokens(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tests.exact.test_starts import bigram_llama

    inner = unigram(normalizers.NFKC())
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    follows = {0: inner.token_to_id("\u2581fox"), inner.token_to_id("\u2581fox"): 2 + ord("\n")}
    model = bigram_llama(inner.get_vocab_size(), follows)
    with pytest.raises(BytelmError, match="NFKC.* rewrites texts"):
        bytelm.convert(model, words, mode="canonical")
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"rewrites a text before it is encoded \(NFKC\)"):
        lm = bytelm.load(tmp_path)
    assert bytelm.generate(lm, b"", max_bytes=5, temperature=0) == b" fox\n"
