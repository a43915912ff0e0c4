"""Nine reported faults of converted models, each with the right value, through public names alone
(and by the import paths that scripts use)."""

import re
import sys

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import bytelm
from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter
from bytelm.exact.fitting import fit_to_context
from bytelm.exact.gguf import EXPRESSIONS
from bytelm.exact.tables import merge_encoder
from bytelm.exact.token_lm import TabularLM
from bytelm.exact.tokenizer_files import expression_spans, read_sentencepiece
from bytelm.lm.fim_templates import TEMPLATES
from bytelm.lm.generate import generate_batch
from bytelm.lm.infill import find_template
from bytelm.lm.regex import regex_dfa

pytest.importorskip("transformers")
from benchmarks.fim_families import trained_sentencepiece
from tests.exact.test_starts import bigram_llama, tokenizer


def directory(folder, specials, follows, *, bos, eos, generation_eos=None, extra=()):
    """A Hugging Face directory with a Llama whose logits depend on the last token alone; names of
    specials or single characters."""
    words = tokenizer(specials, bos_token=bos, eos_token=eos)
    ids = {name: 256 + i for i, name in enumerate(specials)}
    number = lambda name: ids.get(name, ord(name[0]))  # noqa: E731
    follows = {number(a): number(b) for a, b in follows.items()}
    model = bigram_llama(256 + len(specials), follows)
    if generation_eos:
        model.generation_config.eos_token_id = [number(name) for name in generation_eos]
    words.add_tokens([AddedToken(name, special=True) for name in extra])
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def first_byte(folder, prompt=b"") -> bytes:
    return bytes([int(bytelm.load(folder).start(prompt).logprobs().argmax())])


def test_1_a_bos_that_the_tokenizer_never_adds_stands_before_no_text(tmp_path):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    follows = {"<|endoftext|>": "A", "<|im_start|>": "B"}
    folder = directory(tmp_path, names, follows, bos="<|im_start|>", eos="<|im_end|>")
    assert first_byte(folder) == b"A"


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_2_prompts_of_code_llama_keep_the_dummy_blank_before_the_prefix(order, tmp_path):
    path = trained_sentencepiece(TEMPLATES["codellama"], tmp_path)
    tables = read_sentencepiece(path)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    size, asked = len(tables.vocab_bytes), []

    def uniform(history):
        asked.append(tuple(history))
        return [1 / size] * size

    lm = ByteConverter(
        TabularLM(uniform, tables.vocab_bytes, eos_ids=tables.eos_ids), tables.encoder,
        mode="canonical", beam=8, epsilon=1e-3, specials=tables.specials, prefix=tables.prefix,
    )  # fmt: skip
    prefix, suffix = 'def f(s):\n    """ ', "\n    return result\n"
    context, prompt = find_template(lm).fill(order, prefix=prefix.encode(), suffix=suffix.encode())
    lm.start(prompt, context=context).logprobs()
    pre, suf, mid = (reference.piece_to_id(f"\u2581<{name}>") for name in ("PRE", "SUF", "MID"))
    before = reference.encode(prefix)
    after = reference.encode("\u263a" + suffix)[len(reference.encode("\u263a")) :]
    wanted = (
        [pre, *before, suf, *after, mid] if order == "psm" else [pre, suf, *after, mid, *before]
    )
    assert tuple(wanted) in asked


def test_3_lists_of_ends_and_ends_of_middles_end_a_text(tmp_path):
    turns = ["<bos>", "<eos>", "<end_of_turn>"]
    chat = directory(
        tmp_path / "chat", turns, {"x": "<end_of_turn>"}, bos="<bos>", eos="<eos>",
        generation_eos=turns[1:],
    )  # fmt: skip
    (row,) = generate_batch(bytelm.load(chat), [b"x"], max_bytes=8, temperature=0)
    assert (row.data, row.finish) == (b"", "end")
    names = ["<s>", "</s>", *(f"\u2581<{name}>" for name in ("PRE", "SUF", "MID", "EOT"))]
    follows = {"\u2581<MID>": "x", "x": "\u2581<EOT>"}
    filling = bytelm.load(directory(tmp_path / "fim", names, follows, bos="<s>", eos="</s>"))
    assert bytelm.infill(filling, prefix=b"f(", suffix=b")", max_bytes=8, temperature=0) == b"x"


def test_4_added_blanks_are_decoded(tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([AddedToken(" " * n, normalized=False) for n in (8, 4, 2)])
    inner.save(str(tmp_path / "tokenizer.json"))
    text = "if x:\n    return\n        y"
    bpe, ids = bytelm.BinaryBPE.load(tmp_path), inner.encode(text).ids
    assert bpe.decode(ids) == text.encode() and bpe.encode(text.encode()).tolist() == ids


@pytest.mark.parametrize("data", [b"ACGTTGCA" * 60, bytes(range(256)) * 2], ids=["dna", "bytes"])
def test_5_text_without_cuts_costs_what_english_does(data):
    """Counted, not timed: calls into the package while a text is scored."""
    bpe = bytelm.BinaryBPE.load("tokenizers/binary-4k")
    vocab, uniform = list(bpe.token_bytes), np.full(bpe.vocab_size, 1 / bpe.vocab_size)
    token = bpe.codec.token
    merges = [(token(a), token(b)) for a, b in bpe.codec.merges.tolist()]

    def calls(text):
        encoder = merge_encoder(vocab, merges, expression_spans(*EXPRESSIONS["gpt-2"]))
        lm = bytelm.convert(
            TabularLM(lambda h: uniform, vocab, eos_ids=[1]), encoder, mode="canonical"
        )
        count = 0

        def counting(frame, event, _):
            nonlocal count
            count += event == "call" and "bytelm/exact" in frame.f_code.co_filename

        previous = sys.getprofile()
        sys.setprofile(counting)
        try:
            lm.score(text)
        finally:
            sys.setprofile(previous)
        return count

    english = (b"It was a bright cold day in April, and the clocks were striking. " * 9)[
        : len(data)
    ]
    assert calls(data) < 4 * calls(english)
    assert calls(data) < 2.6 * calls(data[: len(data) // 2])


def test_6_a_text_longer_than_the_context_is_read_in_windows(tmp_path):
    lm = bytelm.load(directory(tmp_path, ["<s>", "</s>"], {}, bos="<s>", eos="</s>"))
    text = bytes(range(256)) * 2
    assert np.isfinite(fit_to_context(lm, [text]).bits_per_byte(text))
    windowed = bytelm.load(tmp_path, window=128)
    assert windowed.bits_per_byte(text) == pytest.approx(8, abs=0.1)


def test_7_specials_beyond_the_rows_are_dropped(tmp_path):
    folder = directory(
        tmp_path, ["<s>", "</s>"], {"x": "y"}, bos="<s>", eos="</s>", extra=["[PAD]"]
    )
    assert first_byte(folder, b"x") == b"y"


def test_8_a_prompt_that_cannot_be_written_is_an_error_with_its_offset():
    lm = bytelm.convert(TabularLM(lambda h: [0.5, 0.3, 0.2], [b"a", b"b", None], eos_ids={2}))
    with pytest.raises(BytelmError, match="offset 1"):
        bytelm.generate(lm, b"a\nb", max_bytes=6)


@pytest.mark.parametrize("pattern", [r"(?a)\d+", r"(?a)\w+", r"(?a)\s+"])
def test_9_the_flag_for_ascii_is_honoured(pattern):
    for text in ("12", "\u0663", "\u00e9", "\u2003", " "):
        assert regex_dfa(pattern).accepts(text.encode()) == bool(re.fullmatch(pattern, text))
