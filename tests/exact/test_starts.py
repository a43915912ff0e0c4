"""What stands before a text: what its tokenizer adds, else what separates documents in training."""

import json

import pytest
import torch

import bytelm
from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer
from bytelm.exact.tokenizers.tables import TokenizerTables, byte_alphabet
from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer, read_tokenizer_json

transformers = pytest.importorskip("transformers")
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402

CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tokenizer(specials, *, template: str | None = None, **names):
    """Bytes as tokens 0-255, then the specials; template: what is added, such as "<s> $A"."""
    inner = Tokenizer(models.BPE(vocab={c: b for c, b in byte_alphabet().items()}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True) for name in specials])
    if template:
        ids = [(name, inner.token_to_id(name)) for name in specials if name in template]
        inner.post_processor = TemplateProcessing(single=template, special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)


STARTS = {  # specials, template, names -> what stands before a text
    "SmolLM2-Instruct": (CHAT, None, ("<|im_start|>", "<|im_end|>"), ["<|endoftext|>"]),
    "Qwen": (CHAT, None, (None, "<|im_end|>"), ["<|endoftext|>"]),
    "GPT-2": (["<|endoftext|>"], None, ("<|endoftext|>",) * 2, ["<|endoftext|>"]),
    "Llama 3": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        "<|begin_of_text|> $A",
        ("<|begin_of_text|>", "<|eot_id|>"),
        ["<|begin_of_text|>"],
    ),
    "GLM": (
        ["[gMASK]", "<sop>", "<eop>"],
        "[gMASK] <sop> $A",
        (None, "<eop>"),
        ["[gMASK]", "<sop>"],
    ),
    "OPT": (["<pad>", "</s>"], "</s> $A", ("</s>", "</s>"), ["</s>"]),
    "T5": (["<pad>", "</s>"], "$A </s>", (None, "</s>"), ["</s>"]),
    "both ends": (["<s>", "</s>"], "<s> $A </s>", ("<s>", "</s>"), ["<s>"]),
    "BLOOM": (["<s>", "</s>"], None, ("<s>", "</s>"), ["</s>"]),
    "Gemma": (["<bos>", "<eos>", "<end_of_turn>"], "<bos> $A", ("<bos>", "<eos>"), ["<bos>"]),
    "BOS and turns only": (["<s>", "<|im_end|>"], None, ("<s>", "<|im_end|>"), ["<s>"]),
    "turns only": (["<|im_start|>", "<|im_end|>"], None, (None, "<|im_end|>"), ["<|im_end|>"]),
    "nothing": (["<pad>"], None, (None, None), []),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_text_begins_with_what_the_tokenizer_adds_or_after_a_separator(name, tmp_path):
    specials, template, (bos, eos), expected = STARTS[name]
    words = tokenizer(specials, template=template, bos_token=bos, eos_token=eos)
    tables = read_hf_tokenizer(words)
    assert [words.convert_ids_to_tokens(i) for i in tables.start_ids] == expected
    if template and not template.startswith("$A"):  # the file alone says it, too
        words.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
        assert read_tokenizer_json(tmp_path / "tokenizer.json").start_ids == tables.start_ids


def metadata(**changes: object) -> dict[str, object]:
    tokens = [*byte_alphabet(), *CHAT]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(CHAT),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        **{f"tokenizer.ggml.{name}": value for name, value in changes.items()},
    }


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, [256]),  # SmolLM2: the chat marker that is called BOS is not added
        ({"add_bos_token": False}, [256]),
        ({"add_bos_token": True}, [257]),
        ({"pre": "llama-bpe"}, [257]),  # the default of llama.cpp for this pre-tokenizer
        ({"pre": "llama-bpe", "add_bos_token": False}, [256]),
        ({"bos_token_id": 256}, [256]),
    ],
)
def test_gguf_files_follow_the_same_rule(changes, start):
    assert read_gguf_tokenizer(metadata(**changes)).start_ids == start


def test_ids_of_a_gguf_file_that_are_no_tokens_are_named():
    with pytest.raises(CheckpointError, match="bos id 999 is not one of its 259"):
        read_gguf_tokenizer(metadata(bos_token_id=999))


def test_a_chat_model_scores_text_after_the_separator(tmp_path):
    """Reproduction d1: every first byte but `A` is impossible after the separator, and every one
    but `B` after the chat marker."""
    words = tokenizer(CHAT, bos_token="<|im_start|>", eos_token="<|im_end|>")
    bigram_llama(259, {256: ord("A"), 257: ord("B")}).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    lm = bytelm.load(tmp_path)
    assert int(lm.start(b"").logprobs().argmax()) == ord("A")
    assert int(bytelm.load(tmp_path, start=[257]).start(b"").logprobs().argmax()) == ord("B")


def bigram_llama(size: int, follows: dict[int, int], *, positions: int = 256):
    """A Llama whose logits depend on the last token alone: token -> the token that follows."""
    width = size + size % 2
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size, hidden_size=width, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=positions,
            tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        for before, after in follows.items():
            model.lm_head.weight[after, before] = 30.0 / width**0.5
    return model.eval()


def surplus_directory(folder, *, extra):
    """A model of 258 rows whose tokenizer has more tokens (reproduction d7)."""
    words = tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    words.add_tokens([extra])
    bigram_llama(258, {ord("x"): ord("y")}).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_special_tokens_beyond_the_model_s_rows_are_dropped(tmp_path):
    lm = bytelm.load(surplus_directory(tmp_path, extra=AddedToken("[PAD]", special=True)))
    assert int(lm.start(b"x").logprobs().argmax()) == ord("y")
    assert set(lm.specials) == {"<s>", "</s>"}
    with pytest.raises(BytelmError, match="unknown special symbol"):
        lm.start(b"x", context=["[PAD]"])


def test_text_tokens_beyond_the_model_s_rows_are_refused_by_name(tmp_path):
    folder = surplus_directory(tmp_path, extra=AddedToken("word", special=False))
    with pytest.raises(CheckpointError, match="predicts 258, and token 258 .b'word'. is needed"):
        bytelm.load(folder)


def test_what_stands_before_a_text_must_be_a_row_of_the_model(tmp_path):
    words = tokenizer(["<s>"], template="<s> $A", bos_token="<s>")
    with pytest.raises(CheckpointError, match="token 256 .+<s>.+ is needed"):
        bytelm.convert(bigram_llama(256, {}), words)


@pytest.mark.parametrize("size", range(2, 7))
def test_tables_take_any_size_that_text_allows(size):
    """Two tokens of text, three specials; sizes above are padding, below drop specials."""
    tables = TokenizerTables([b"a", b"b", None, None, None], specials={"<p>": 3, "<q>": 4})
    tables.start_ids, tables.eos_ids = [0], {2, 4}
    found = tables.of_size(size)
    assert len(found.vocab_bytes) == size and found.vocab_bytes[:2] == [b"a", b"b"]
    assert max([*found.specials.values(), *found.eos_ids, 0]) < size
    with pytest.raises(CheckpointError, match="token 1 .b'b'. is needed"):
        tables.of_size(1)


def test_a_causal_model_over_the_bytes_of_byt5(tmp_path):
    words = transformers.ByT5Tokenizer()
    model = bigram_llama(384, {0: ord("o") + 3, ord("o") + 3: ord("k") + 3, ord("k") + 3: 1})
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    for mode in ("all", "canonical", "canonicalised"):
        lm = bytelm.load(tmp_path, mode=mode)
        assert bytelm.generate(lm, b"", temperature=0, max_bytes=9) == b"ok"
        text = "a é"
        assert lm.encoder.encode(text.encode()) == words(text, add_special_tokens=False).input_ids


def test_tables_without_specials_have_no_start():
    tables = TokenizerTables([b"a"])
    tables.set_ends()
    assert tables.start_ids == [] and json.dumps(sorted(tables.eos_ids)) == "[]"
