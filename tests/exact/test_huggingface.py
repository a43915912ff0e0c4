"""Tiny random transformers against their own ordinary forward pass, and the errors of bad files."""

import json
import math

import pytest
import torch

from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact import convert, load_token_model
from bytelm.exact.models.huggingface import HuggingFaceLM
from bytelm.exact.token_lm import PendingParent
from bytelm.exact.tokenizers.tokenizer_json import read_definition

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

TEXT = "It's a test, isn't it?\n\nYes it is: 1234 tests.\n  def test(self):\n" * 3
SIZE = 300


def tokenizer(*, bos: str | None = "<s>"):
    """A byte-level BPE tokenizer of 300 tokens, trained on the spot."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    names = ["<s>", "<fim>"] if bos else ["<fim>"]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 5,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([TEXT], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos)


def llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        initializer_range=0.4, **options,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def mistral():
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4, initializer_range=0.4,
    )  # fmt: skip
    return transformers.MistralForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.4
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("make", [llama, mistral, gpt2])
def test_a_tree_of_rows_is_what_the_model_says_along_each_path(make):
    model = make()
    vocab = [None, *([b"x"] * (SIZE - 1))]
    lm = HuggingFaceLM(model, vocab, eos_ids=set(), start_ids=[0])
    cache = lm.open()
    root, _ = lm.root(cache)
    rows, names = [], []
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):  # a random tree in one call
        parent = int(torch.randint(-1, len(rows), (1,), generator=generator)) if rows else -1
        token = int(torch.randint(1, SIZE, (1,), generator=generator))
        rows.append((root if parent < 0 else PendingParent(parent), token))
        names.append((*(names[parent] if parent >= 0 else ()), token))
    ((nodes, logprobs),) = lm.extend_trees([(cache, rows)])
    lm.release(cache, nodes[20:])  # their slots are used again
    more, later = lm.extend(cache, [(nodes[3], 7), (nodes[5], 9)])
    names += [(*names[3], 7), (*names[5], 9)]
    for name, row in zip(names, torch.cat([logprobs, later]), strict=True):
        ids = torch.tensor([[0, *name]])
        expected = model(ids).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(row, expected, rtol=0, atol=2e-5)
    assert lm.rows_evaluated == 1 + 30 + 2
    assert model.config._attn_implementation != "bytelm_tree"  # the user's model is as it was


@pytest.mark.parametrize("mode", ["all", "canonical", "canonicalised"])
def test_one_pass_over_a_known_text_equals_one_byte_at_a_time(mode):
    lm = convert(llama(), tokenizer(), mode=mode, epsilon=1e-2)
    data = TEXT[:40].encode()
    state, steps = lm.start(), []
    for byte in data:
        steps.append(state.logprobs()[byte])
        state = state.feed(bytes([byte]))
    steps.append(state.logprobs()[256])
    torch.testing.assert_close(lm.score_with_end(data), torch.stack(steps), rtol=0, atol=1e-4)
    assert state.logprobs().exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_texts_side_by_side_are_as_alone_and_long_ones_share_one_call():
    lm = convert(llama(), tokenizer(), mode="canonical")
    texts = [b"It's", b"", b"a test\n\n", "é\xff".encode("latin-1")]
    batch = lm.start_batch(texts)
    for row, text in enumerate(texts):
        torch.testing.assert_close(
            batch.logprobs()[row], lm.start(text).logprobs(), rtol=0, atol=1e-4
        )


def test_no_keys_are_copied_for_a_byte():
    lm = convert(llama(), tokenizer(), mode="canonical")
    state = lm.start(b"It's a")
    tree = state.batch.beams[0].hypotheses[0].prefix.tree
    before = {layer: keys.data_ptr() for layer, (keys, _) in tree.cache.layers.items()}
    for byte in b" test, isn't it?":
        state = state.feed(bytes([byte]))
        state.logprobs()
    assert {layer: keys.data_ptr() for layer, (keys, _) in tree.cache.layers.items()} == before
    assert tree.cache.used < 40  # slots of token prefixes that no state stands on are used again


@pytest.mark.parametrize("mode", ["canonical", "canonicalised"])  # a beam's cuts may fall otherwise
def test_a_float32_model_says_what_its_float64_twin_says_on_a_kilobyte(mode):
    text = (TEXT.encode() * 6)[:1024]
    scores = [
        convert(llama(rope_theta=10000.0).to(kind), tokenizer(), mode=mode).score_batch_with_end(
            [text[i : i + 128] for i in range(0, 1024, 128)]
        )
        for kind in (torch.float32, torch.float64)
    ]
    for single, double in zip(*scores, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-5)


def test_text_that_spells_a_special_token_is_text():
    lm = convert(llama(), tokenizer(), mode="canonical")
    scores = lm.score(b"a<fim>b")
    assert torch.isfinite(scores).all()
    assert lm.trie.vocab_bytes[lm.specials["<fim>"]] is None
    assert lm.start(b"b", context=[b"a", "<fim>"]).logprob != pytest.approx(
        lm.conditional_score(b"a<fim>", b"b"), abs=1e-3
    )


def test_a_context_conditions_and_is_not_scored():
    lm = convert(llama(), tokenizer(), mode="all", beam=64, epsilon=0)
    state = lm.start(b"s a", context=b"It'")
    assert state.logprob == pytest.approx(
        lm.start(b"It's a").logprob - lm.start(b"It'").logprob, abs=1e-4
    )


def test_contexts_too_long_missing_bos_and_foreign_tokenizers_are_named():
    with pytest.raises(BytelmError, match="context is 128"):
        convert(llama(), tokenizer(), mode="canonical").score(b"x y " * 80)
    with pytest.raises(BytelmError, match="neither a BOS token nor"):
        convert(llama(bos_token_id=None, eos_token_id=None), tokenizer(bos=None))
    assert convert(llama(), tokenizer(bos=None), start=[0]).start(b"a").logprob < 0
    small = llama()
    small.resize_token_embeddings(200)
    with pytest.raises(CheckpointError, match="do not belong together"):
        convert(small, tokenizer())
    with pytest.raises(BytelmError, match="needs its tokenizer"):
        convert(llama())


def test_models_whose_attention_cannot_be_a_tree_are_refused():
    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=1, n_head=2)
    with pytest.raises((BytelmError, ValueError)):
        convert(transformers.BloomForCausalLM(config), tokenizer())


def test_a_saved_directory_loads_and_bad_files_are_named(tmp_path):
    model, words = llama(), tokenizer()
    model.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    loaded = load_token_model(tmp_path / "model")
    direct = convert(model, words)
    torch.testing.assert_close(loaded.score(b"It's"), direct.score(b"It's"), rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="no config.json"):
        load_token_model(tmp_path)
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        load_token_model(tmp_path / "bad.gguf")
    with pytest.raises(FileNotFoundError):
        load_token_model(tmp_path / "none.gguf")


def test_sentencepiece_like_definitions_are_read():
    """A Llama-2 style tokenizer.json: characters, byte fallback, dummy blank."""
    pieces = ["<unk>", "<s>", *[f"<0x{i:02X}>" for i in range(256)], "\u2581", "a", "b", "\u2581a"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    tables = read_definition(
        {
            "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace],
            },
            "pre_tokenizer": None,
            "decoder": None,
            "model": {
                "type": "BPE",
                "byte_fallback": True,
                "unk_token": "<unk>",
                "vocab": vocab,
                "merges": [["\u2581", "a"]],
            },
        }
    )
    assert tables.dummy_prefix == b" "
    assert tables.encoder.encode(b" ab") == [vocab["\u2581a"], vocab["b"]]
    assert tables.encoder.encode(b"<s>\xc3") == [2 + byte for byte in b"<s>\xc3"]
    assert tables.vocab_bytes[:2] == [None, None] and tables.vocab_bytes[2 + 10] == b"\n"


def test_tokenizers_that_lose_text_are_refused():
    definition = {
        "added_tokens": [],
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece"},
        "model": {"type": "WordPiece", "vocab": {"a": 0}},
    }
    with pytest.raises(BytelmError, match="does not keep every byte"):
        read_definition(json.loads(json.dumps(definition)))


def test_the_end_is_reached_and_bits_are_finite():
    lm = convert(gpt2(), tokenizer(), mode="all")
    assert 0 < lm.bits_per_byte(b"It is") < 100
    assert math.isfinite(lm.start(b"\xf0\x9f").logprob)
