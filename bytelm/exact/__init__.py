"""Tokenized language models as exact byte-level ones (docs/exact.md)."""

from bytelm.exact.converter import ByteConverter, ConvertedState, convert
from bytelm.exact.encoders import CallableEncoder, Encoder
from bytelm.exact.gguf import load_gguf
from bytelm.exact.huggingface import load_hf, load_token_model
from bytelm.exact.token_lm import NgramLM, TabularLM, TokenLM, TreeTokenLM

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
