"""Every file that a loader reads: how a sound one is made, and who reads it.

A `Format` makes a folder that loads, names the file in it that is damaged, and loads the folder
again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.fuzz.folders import (
    binary_bpe,
    binary_bpe_packed,
    built_corpus,
    chat,
    classify,
    encode,
    gguf,
    hugging_face,
    load,
    load_gguf,
    merges,
    open_corpus,
    read_checkpoint,
    read_curves,
    read_recipe,
    read_rwkv_file,
    read_sentencepiece_file,
    read_tiktoken_file,
    read_tokenizer_json_file,
    resume_merges,
    run_of_bytes,
    run_of_chunks,
    run_of_labels,
    run_of_tokens,
    rwkv_vocabulary,
    sentencepiece_directory,
    sharded,
    tiktoken_ranks,
    unigram,
    vocabulary_files,
)


@dataclass(frozen=True)
class Format:
    """One file of one kind of folder. written: what it is written in, which is damaged as such."""

    file: str
    make: Callable[[Path], object]
    load: Callable[[Path], object]
    written: Literal["bytes", "json", "text"] = "bytes"


FORMATS: dict[str, Format] = {
    "hf config": Format("config.json", hugging_face, load, "json"),
    "hf generation": Format("generation_config.json", hugging_face, load, "json"),
    "hf tokenizer": Format("tokenizer.json", hugging_face, load, "json"),
    "hf unigram tokenizer": Format("tokenizer.json", unigram, load, "json"),
    "hf tokenizer settings": Format("tokenizer_config.json", hugging_face, load, "json"),
    "hf special tokens": Format("special_tokens_map.json", hugging_face, load, "json"),
    "hf added tokens": Format("added_tokens.json", hugging_face, load, "json"),
    "hf chat template": Format("chat_template.jinja", hugging_face, chat, "text"),
    "hf weights": Format("model.safetensors", hugging_face, load),
    "hf index": Format("model.safetensors.index.json", sharded, load, "json"),
    "hf vocabulary": Format("vocab.json", vocabulary_files, load, "json"),
    "hf merges": Format("merges.txt", vocabulary_files, load, "text"),
    "hf sentencepiece": Format("tokenizer.model", sentencepiece_directory, load),
    "gguf": Format("m.gguf", gguf, load_gguf),
    "sentencepiece file": Format(
        "tokenizer.model", sentencepiece_directory, read_sentencepiece_file
    ),
    "tiktoken ranks": Format("ranks", tiktoken_ranks, read_tiktoken_file, "text"),
    "rwkv vocabulary": Format("vocab.txt", rwkv_vocabulary, read_rwkv_file, "text"),
    "tokenizer.json": Format("tokenizer.json", hugging_face, read_tokenizer_json_file, "json"),
    "binary bpe": Format("tokenizer.json", binary_bpe, encode, "json"),
    "binary bpe, packed": Format("tokenizer.json.gz", binary_bpe_packed, encode),
    "binary bpe checkpoint": Format("training.npz", merges, resume_merges),
    "run config": Format("config.json", run_of_bytes, load, "json"),
    "run config, chunks": Format("config.json", run_of_chunks, load, "json"),
    "run config, tokens": Format("config.json", run_of_tokens, load, "json"),
    "run config, labels": Format("config.json", run_of_labels, classify, "json"),
    "run weights": Format("model.safetensors", run_of_bytes, load),
    "run tokenizer": Format("tokenizer.json", run_of_tokens, load, "json"),
    "run recipe": Format("recipe.toml", run_of_bytes, read_recipe, "text"),
    "run state": Format("trainer/step-00000002/state.json", run_of_bytes, read_checkpoint, "json"),
    "run metrics": Format("metrics.jsonl", run_of_bytes, read_curves, "text"),
    "corpus description": Format("corpus.json", built_corpus, open_corpus, "json"),
    "corpus offsets": Format("offsets.npy", built_corpus, open_corpus),
    "corpus documents": Format("documents.parquet", built_corpus, open_corpus),
    "corpus shard": Format("shard-00000.bin", built_corpus, open_corpus),
}
