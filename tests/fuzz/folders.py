"""Sound folders of every kind that a loader reads, and what reads them, as far as a user does:
until a model has said something, or a corpus was read."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

WORDS = b"It's a test, isn't it? Yes it is: 1234 tests. "


def say(lm: Any) -> None:
    """Something that every working model can do."""
    logprobs = lm.start(b"te").logprobs()
    assert logprobs.shape == (257,) and not torch.isnan(logprobs).any() and (logprobs <= 1e-4).all()


# ---- Hugging Face directories and GGUF -----------------------------------------------------------


def _llama(**options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=266, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, **options,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def _byte_level() -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=264,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([WORDS.decode()], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def hugging_face(folder: Path) -> None:
    """config, generation settings, a tokenizer with all files beside it, a chat template."""
    _llama().save_pretrained(folder)
    tokenizer = _byte_level()
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    (folder / "added_tokens.json").write_text('{"<extra>": 264}')
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def sharded(folder: Path) -> None:
    """The same with its weights in two files and an index."""
    _llama().save_pretrained(folder, max_shard_size=9000)
    _byte_level().save_pretrained(folder)


def unigram(folder: Path) -> None:
    """The same with a tokenizer over characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    _llama().save_pretrained(folder)
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(f"<0x{value:02X}>", -9.0) for value in range(256)]
    pieces += [("▁test", -2.0), ("te", -3.0), ("▁", -4.0)]
    inner = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def vocabulary_files(folder: Path) -> None:
    """A GPT-2 with vocab.json and merges.txt in place of a tokenizer.json."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=266, n_embd=8, n_layer=1, n_head=2, n_positions=64, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    model = json.loads(_byte_level().backend_tokenizer.to_str())["model"]
    vocab = {"<|endoftext|>" if word == "<s>" else word: i for word, i in model["vocab"].items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"])
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def _sentencepiece() -> bytes:
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS.decode()] * 3), model_writer=out, vocab_size=280,
        model_type="bpe", byte_fallback=True, minloglevel=2, character_coverage=1.0,
        hard_vocab_limit=False,
    )  # fmt: skip
    return out.getvalue()


def sentencepiece_directory(folder: Path) -> None:
    """A Llama with the tokenizer.model of SentencePiece alone."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=280, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(_sentencepiece())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


def gguf(folder: Path) -> None:
    """A Llama as llama.cpp writes it."""
    from tests.exact.gguf_file import write_gguf

    write_gguf(folder / "m.gguf", _llama(), _byte_level())


def load(folder: Path) -> None:
    """As `bytelm.load` does it."""
    import bytelm

    say(bytelm.load(folder))


def load_gguf(folder: Path) -> None:
    import bytelm

    say(bytelm.load(folder / "m.gguf"))


def chat(folder: Path) -> None:
    """The message of a user in the model's template."""
    from bytelm.exact.chat import chat_ids

    assert all(isinstance(i, int) for i in chat_ids(folder, b"hello"))


# ---- single files of tokenizers ------------------------------------------------------------------


def _tables(tables: Any) -> None:
    """Encode a little with what was read."""
    assert all(data is None or isinstance(data, bytes) for data in tables.vocab_bytes)
    if tables.encoder is not None and not tables.reason:
        tables.encoder.encode(b"test te")


def read_sentencepiece_file(folder: Path) -> None:
    from bytelm.exact.tokenizer_files import read_sentencepiece

    _tables(read_sentencepiece(folder / "tokenizer.model"))


def read_tiktoken_file(folder: Path) -> None:
    from bytelm.exact.tokenizer_files import read_tiktoken

    _tables(read_tiktoken(folder / "ranks", None, specials={"<end>": 300}))


def read_rwkv_file(folder: Path) -> None:
    from bytelm.exact.tokenizer_files import read_rwkv

    _tables(read_rwkv(folder / "vocab.txt"))


def read_tokenizer_json_file(folder: Path) -> None:
    from bytelm.exact.tokenizer_files import read_tokenizer_json

    _tables(read_tokenizer_json(folder / "tokenizer.json"))


def tiktoken_ranks(folder: Path) -> None:
    from tests.lm.subwords import BPE

    (folder / "ranks").write_bytes(BPE.to_tiktoken())


def rwkv_vocabulary(folder: Path) -> None:
    tokens = [bytes([value]) for value in range(256)] + [b"te", "é".encode()]
    lines = [f"{i} {t!r} {len(t)}\n" for i, t in enumerate(tokens, 1)]
    (folder / "vocab.txt").write_text("".join(lines))


def binary_bpe(folder: Path) -> None:
    from tests.lm.subwords import BPE

    BPE.save(folder)


def binary_bpe_packed(folder: Path) -> None:
    binary_bpe(folder)
    (folder / "tokenizer.json.gz").write_bytes(
        gzip.compress((folder / "tokenizer.json").read_bytes(), mtime=0)
    )
    (folder / "tokenizer.json").unlink()


def encode(folder: Path) -> None:
    from bytelm.tokenizer import BinaryBPE

    bpe = BinaryBPE.load(folder)
    data = bytes(range(256)) + WORDS
    assert bpe.decode(bpe.encode(data)) == data


def merges(folder: Path) -> None:
    from bytelm.tokenizer.checkpoint import Checkpoints
    from tests.lm.subwords import BPE

    kept = Checkpoints(folder)
    kept.report(np.asarray(BPE.codec.merges), "a" * 64)
    kept.save()


def resume_merges(folder: Path) -> None:
    from bytelm.tokenizer import BinaryBPE
    from bytelm.tokenizer.checkpoint import Checkpoints

    found, digest = Checkpoints(folder).load()
    assert isinstance(digest, str)
    BinaryBPE.from_merges([(int(a), int(b)) for a, b in found])


# ---- runs and corpora ----------------------------------------------------------------------------


def run_of_bytes(folder: Path) -> None:
    """A run that was trained for two steps."""
    from bytelm.recipe import Recipe
    from bytelm.training import train

    (folder / "data.txt").write_bytes(WORDS * 5)
    train(
        Recipe.from_dict(
            {
                "model": {"arch": "transformer", "layers": 1, "d_model": 8, "heads": 1},
                "data": {"train": [str(folder / "data.txt")], "heldout": []},
                "train": {"steps": 2, "batch_bytes": 64, "context_bytes": 32, "device": "cpu"},
                "log": {"every": 1},
            }
        ),
        run_dir=folder / "run",
    )
    for path in (folder / "run").iterdir():
        shutil.move(path, folder / path.name)


def run_of_chunks(folder: Path) -> None:
    """A run directory of a hierarchical model."""
    from tests.lm.contract import hnet
    from tests.lm.runs import save_run

    save_run(hnet(["m1", ["T1"], "m1"]), folder, arch="hnet")


def run_of_tokens(folder: Path) -> None:
    """A run directory of a model over tokens, with its tokenizer."""
    from tests.lm import subwords
    from tests.lm.runs import save_run

    save_run(subwords.transformer(), folder, arch="transformer")


def run_of_labels(folder: Path) -> None:
    """A run directory of a classifier."""
    from bytelm.lm.classifier import Classifier
    from tests.arch.cases import make
    from tests.lm.runs import save_run

    save_run(Classifier(make("encoder"), window=20), folder, arch="encoder")


def classify(folder: Path) -> None:
    from bytelm.loading import load_classifier

    classifier = load_classifier(folder)
    assert classifier.predict([b"te"]).shape == (1, len(classifier.labels))


def read_recipe(folder: Path) -> None:
    from bytelm.run import Run

    recipe = Run(folder).recipe()
    assert recipe.arch_config and recipe.objective_config


def read_checkpoint(folder: Path) -> None:
    from bytelm.training.checkpoint import latest_checkpoint, read_position

    path = latest_checkpoint(folder / "trainer")
    assert path is not None and isinstance(read_position(path).step, int)


def read_curves(folder: Path) -> None:
    from bytelm.training.metrics import read_metrics

    assert all(isinstance(row, dict) for row in read_metrics(folder / "metrics.jsonl"))


def built_corpus(folder: Path) -> None:
    from bytelm.data.corpus.build import build

    (folder / "in").mkdir()
    for number in range(5):
        (folder / "in" / f"{number}.txt").write_bytes(WORDS * number)
    build(folder / "in", folder / "corpus")
    shutil.rmtree(folder / "in")
    for path in (folder / "corpus").iterdir():
        shutil.move(path, folder / path.name)
    (folder / "corpus").rmdir()


def open_corpus(folder: Path) -> None:
    from bytelm.data import Corpus

    opened = Corpus.open(folder, verify=False)  # as if it were too large for its hashes
    assert sum(len(opened.document(i)) for i in range(len(opened))) == opened.total_bytes
    for name in ("path", "group", "folder"):
        opened.column(name)
