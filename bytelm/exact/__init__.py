"""Tokenized language models as exact byte-level ones (docs/exact.md)."""

from bytelm.exact.conversion import convert, load_gguf, load_hf, load_token_model
from bytelm.exact.converter import ByteConverter, ConvertedState
from bytelm.exact.token_lm import NgramLM, TabularLM, TokenLM, TreeTokenLM
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder

__all__ = [
    "ByteConverter",
    "CallableEncoder",
    "ConvertedState",
    "Encoder",
    "NgramLM",
    "TabularLM",
    "TokenLM",
    "TreeTokenLM",
    "convert",
    "load_gguf",
    "load_hf",
    "load_token_model",
]
