"""`convert`, and the loaders of files that hold tokenized models: whatever it is, as a `ByteLM`.

The one file that knows both the converter and the adapters of `models/` and `tokenizers/`, which
know neither it nor one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter, Mode
from bytelm.exact.models.gguf import load_weights
from bytelm.exact.models.huggingface import (
    hugging_face_lm,
    is_hugging_face,
    read_directory,
    token_lm,
)
from bytelm.exact.token_lm import TokenLM
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata
from bytelm.exact.tokenizers.tables import TokenizerTables
from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer


def convert(
    model: Any,
    tokenizer: Any = None,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    start: Sequence[int] | None = None,
) -> ByteConverter:
    """A tokenized language model as a `ByteLM`.

    model, tokenizer: a Hugging Face causal LM and its tokenizer; or any `TokenLM` and, for the
    canonical modes, an `Encoder` or a function from bytes to ids.
    start: ids that stand before every text of a Hugging Face model, if not its BOS or separator.

    >>> from bytelm.exact import TabularLM
    >>> lm = convert(TabularLM(lambda h: [0.5, 0.25, 0.25], [b"a", b"ab", None], eos_ids={2}))
    >>> round(lm.start(b"a").logprobs().exp()[98].item(), 4)     # "ab" is 1/3 of what starts with a
    0.3333
    """
    if is_hugging_face(model):
        tables = _tables_of(tokenizer, mode)
        return _converter(hugging_face_lm(model, tables, start), tables, mode, beam, epsilon)
    if start is not None:
        raise BytelmError("`start` is for Hugging Face models; a TokenLM has its own start_ids")
    encoder = _encoder(tokenizer, model)
    return ByteConverter(model, encoder, mode=mode, beam=beam, epsilon=epsilon)


def load_hf(
    path: str | Path,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    device: str | torch.device = "cpu",
) -> ByteConverter:
    """The model in a Hugging Face directory (config, safetensors, tokenizer) as a `ByteLM`."""
    model, tokenizer = read_directory(path, device)
    return convert(model, tokenizer, mode=mode, beam=beam, epsilon=epsilon)


def load_gguf(
    path: str | Path,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    device: str | torch.device = "cpu",
) -> ByteConverter:
    """The GGUF file as a `ByteLM`; `CheckpointError` if it is none or holds another kind of model.

    float32 weights take four bytes a parameter in memory, whatever the file's quantisation.
    """
    path = Path(path)
    tables = read_gguf_tokenizer(read_metadata(path))
    if mode != "all":
        tables.require_encoder()
    lm = token_lm(
        load_weights(path).to(device),
        tables.vocab_bytes,
        eos_ids=tables.eos_ids,
        start_ids=tables.start_ids,
    )
    return _converter(lm, tables, mode, beam, epsilon)


def load_token_model(path: str | Path, *, device: str | torch.device = "cpu") -> ByteConverter:
    """The converted model at `path`, a .gguf file or a Hugging Face directory, in mode "all"."""
    load = load_gguf if Path(path).suffix == ".gguf" else load_hf
    return load(path, device=device)


def _tables_of(tokenizer: Any, mode: Mode) -> TokenizerTables:
    if tokenizer is None:
        raise BytelmError("converting a Hugging Face model needs its tokenizer as second argument")
    tables = read_hf_tokenizer(tokenizer)
    if mode != "all":
        tables.require_encoder()
    return tables


def _converter(
    lm: TokenLM, tables: TokenizerTables, mode: Mode, beam: int, epsilon: float
) -> ByteConverter:
    return ByteConverter(
        lm,
        tables.encoder,
        mode=mode,
        beam=beam,
        epsilon=epsilon,
        specials=tables.specials,
        dummy_prefix=tables.dummy_prefix,
    )


def _encoder(
    encode: Encoder | Callable[[bytes], Sequence[int]] | None, lm: TokenLM
) -> Encoder | None:
    if encode is None or isinstance(encode, Encoder):
        return encode
    return CallableEncoder(encode, lm.vocab_bytes)
