"""`convert`, and the loaders of files that hold tokenized models: whatever it is, as a `ByteLM`.

The one file that knows both the converter and the adapters of `models/` and `tokenizers/`; no
adapter knows the converter. Every way in takes the same settings and ends in `_Reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch

from bytelm.damage import malformed
from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter, Mode
from bytelm.exact.models.huggingface import (
    hugging_face_lm,
    is_hugging_face,
    output_size,
    token_lm,
)
from bytelm.exact.models.pretrained import read_directory, read_gguf_model
from bytelm.exact.token_lm import TokenLM
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder
from bytelm.exact.tokenizers.gguf_tokenizer import read_gguf_tokenizer, read_metadata
from bytelm.exact.tokenizers.tables import TokenizerTables
from bytelm.exact.tokenizers.tokenizer_json import read_hf_tokenizer
from bytelm.exact.windowed import WindowedConverter

Device = str | torch.device
Converted = ByteConverter | WindowedConverter
_MODEL = "a model with its tokenizer"


@overload
def convert(
    model: Any,
    tokenizer: Any = None,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    start: Sequence[int] | None = None,
    ends: Sequence[int | str] = (),
    window: None = None,
    stride: None = None,
) -> ByteConverter: ...


@overload
def convert(
    model: Any,
    tokenizer: Any = None,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    start: Sequence[int] | None = None,
    ends: Sequence[int | str] = (),
    window: int | None,
    stride: int | None = None,
) -> Converted: ...


def convert(
    model: Any,
    tokenizer: Any = None,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    start: Sequence[int] | None = None,
    ends: Sequence[int | str] = (),
    window: int | None = None,
    stride: int | None = None,
) -> Converted:
    """A tokenized language model as a `ByteLM`: exact probabilities of the next byte after any
    bytes, also in the middle of a token or of a character.

    A token model says how likely the next token is; how likely the next *byte* is follows from it
    by summing over all token strings that agree with the bytes so far. Encoding the prompt and
    reading off the next token is not that sum: where a prompt ends inside a token it is wrong by
    several bits. The converted model has no such place, and it can be combined with any other
    `ByteLM`, since all of them speak bytes::

        lm = bytelm.convert(hf_model, hf_tokenizer)           # or bytelm.load("model.gguf")
        lm.start(b"def add5(aa): ret").logprobs()             # (257,): 256 bytes and the end
        bytelm.generate(lm, b"def add5(aa): ret", max_bytes=40)

    model, tokenizer
        a transformers causal LM and its (fast) tokenizer; or any `TokenLM`, in which case the
        tokenizer is a function from bytes to a list of ids (`KeyError` or `ValueError` for bytes it
        cannot write), an `Encoder`, which knows more of its tokenizer and is faster, or None where
        nothing canonical is asked for. For files see `load_token_model`.
    mode
        which token strings the sum runs over. They are three different quantities, each a proper
        distribution over byte strings:

        "all"            every token string that spells the text: the law of "sample tokens,
                         decode". Kept by a beam, hence a lower bound with a stated error
                         (`state.batch.log_lower`, `.log_dropped`). Needs no tokenizer, but is
                         faster with one. 0.3 to 2 rows of the model per byte.
        "canonical"      token strings that the tokenizer would have written, for some continuation
                         of the text. Nothing is pruned. One row per byte, and often the better
                         choice where a row costs much and text is hard to predict.
        "canonicalised"  as "canonical", for the model that is made to write nothing else (other
                         tokens masked, the rest renormalised): both sums are then the same number.
                         One row per byte and a test of every token of the vocabulary.
    beam, epsilon
        of mode "all" only: at most `beam` token prefixes (>= 1) are added at a byte, each of at
        least `epsilon` (in [0, 1)) of the probability mass. What is pruned is not forgotten: it is
        evaluated later if a surprising byte makes it matter. 8 and 1e-3 are within 0.003 bits per
        byte of a beam of 64; 4 and 1e-2 take half the rows.
    start
        ids that stand before every text and are not scored. Default: the tokenizer's BOS or
        document separator; a `TokenLM` has its own `start_ids`.
    ends
        special tokens, ids or names, that end a text besides those that the tokenizer, the model's
        configurations (also for generation) and its family of infilling models say; a `TokenLM`
        has its own `eos_ids`.
    window, stride
        bytes: long texts are read with at most `window` bytes of context, of which `stride` are
        dropped at a time when it is full (default: window // 2). Default: no limit but the model's
        own context, beyond which feeding raises `BytelmError`. With a window the result is a
        `WindowedConverter`, whose contexts are bytes only.

    `BytelmError` if the settings are out of range, the canonical modes are asked of a tokenizer
    that does not have them (the message says why), the tokenizer does not keep every byte of its
    text (WordPiece), or nothing stands before a text (give `start`). `CheckpointError` if model and
    tokenizer do not belong together.

    Sums over covers of a byte prefix: Vieira et al., "From Language Models over Tokens to Language
    Models over Characters" (ICML 2025), Proposition 1. Canonical covers: Phan et al., "Exact
    Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model Ensembles"
    (arXiv 2410.09303). Masking: Vieira et al., "Language Models over Canonical Byte-Pair Encodings"
    (ICML 2025). docs/exact.md says how the three differ and what was measured.

    >>> from bytelm.exact import TabularLM
    >>> half = TabularLM(lambda tokens: [0.5, 0.25, 0.25], [b"a", b"ab", None], eos_ids={2})
    >>> lm = convert(half)
    >>> round(lm.start(b"a").logprobs().exp()[ord("b")].item(), 4)  # "ab": 1/3 of all with an "a"
    0.3333
    >>> longest_match = lambda data: [1] * data.count(b"ab") + [0] * (data[-1:] == b"a")
    >>> lm = convert(half, longest_match, mode="canonical", window=100)
    >>> round(lm.bits_per_byte(b"abab"), 4)                         # two tokens of 2 bits each
    1.0
    """
    reading = _Reading(mode, beam, epsilon, window, stride)
    if is_hugging_face(model):
        if tokenizer is None:
            raise BytelmError(
                "converting a Hugging Face model needs its tokenizer as second argument"
            )
        tables = reading.checked(read_hf_tokenizer(tokenizer)).of_size(output_size(model))
        return reading.of(hugging_face_lm(model, tables.with_ends(ends), start), tables)
    if ends:
        raise BytelmError(
            f"this {type(model).__name__} says by its own eos_ids {sorted(model.eos_ids)} what "
            "ends a text: leave `ends` out"
        )
    tables = TokenizerTables(model.vocab_bytes, _encoder(tokenizer, model))
    if start is not None and model.start_ids:
        raise BytelmError(
            f"this {type(model).__name__} has its own start_ids {list(model.start_ids)}: leave "
            "`start` out"
        )
    return reading.of(model, tables, start=start or ())


def load_token_model(
    path: str | Path,
    *,
    device: Device = "cpu",
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    start: Sequence[int] | None = None,
    ends: Sequence[int | str] = (),
    window: int | None = None,
    stride: int | None = None,
) -> Converted:
    """The tokenized model in a .gguf file or a Hugging Face directory (config, safetensors,
    tokenizer) as a `ByteLM`.

    device: where the model computes. All other settings are those of `convert`. The weights of a
    GGUF file take four bytes per parameter in memory, whatever its quantisation.

    `FileNotFoundError` or `CheckpointError` if there is no such model at `path`, and the errors of
    `convert`; `MissingExtraError` without the extra `hf`.
    """
    path, reading = Path(path), _Reading(mode, beam, epsilon, window, stride)
    if path.suffix == ".gguf":
        metadata = read_metadata(path)
        with malformed(path, _MODEL):
            tables = reading.checked(read_gguf_tokenizer(metadata))
        model = read_gguf_model(path).to(device)
        with malformed(path, _MODEL):
            tables = tables.of_size(output_size(model)).with_ends(ends)
            lm = token_lm(
                model,
                tables.vocab_bytes,
                eos_ids=tables.eos_ids,
                start_ids=tables.start_ids if start is None else start,
            )
            return reading.of(lm, tables)
    model, tokenizer = read_directory(path, device)
    with malformed(path, _MODEL):
        tables = reading.checked(read_hf_tokenizer(tokenizer)).of_size(output_size(model))
        return reading.of(hugging_face_lm(model, tables.with_ends(ends), start), tables)


@dataclass(frozen=True)
class _Reading:
    """How a token model is to be read; see `convert`."""

    mode: Mode
    beam: int
    epsilon: float
    window: int | None
    stride: int | None

    def checked(self, tables: TokenizerTables) -> TokenizerTables:
        """The tables, before weights are loaded: an error if they do not allow the mode, a warning
        if the tokenizer rewrites texts."""
        if self.mode != "all":
            tables.require_encoder()
        tables.announce_rewriting()
        return tables

    def of(self, lm: TokenLM, tables: TokenizerTables, *, start: Sequence[int] = ()) -> Converted:
        """`lm`, whose tokenizer has these tables, as a `ByteLM`."""
        converter = ByteConverter(
            lm,
            tables.encoder,
            mode=self.mode,
            beam=self.beam,
            epsilon=self.epsilon,
            specials=tables.specials,
            dummy_prefix=tables.dummy_prefix,
            start=start,
        )
        if self.window is None:
            if self.stride is not None:
                raise BytelmError("stride says how a window slides: give window=N (bytes) as well")
            return converter
        return WindowedConverter(converter, window=self.window, stride=self.stride)


def _encoder(
    encode: Encoder | Callable[[bytes], Sequence[int]] | None, lm: TokenLM
) -> Encoder | None:
    if encode is None or isinstance(encode, Encoder):
        return encode
    return CallableEncoder(encode, lm.vocab_bytes)
