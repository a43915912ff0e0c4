"""Tokenized language models as exact byte-level ones (docs/exact.md)."""

from bytelm.exact.conversion import convert, load_token_model
from bytelm.exact.converter import ByteConverter, Mode
from bytelm.exact.models.tabular import TabularLM, TokenNgramLM
from bytelm.exact.state import ConvertedState
from bytelm.exact.token_lm import TokenLM, TreeTokenLM
from bytelm.exact.tokenizers.encoders import CallableEncoder, Encoder
from bytelm.exact.windowed import WindowedConverter

__all__ = [
    "ByteConverter",
    "CallableEncoder",
    "ConvertedState",
    "Encoder",
    "Mode",
    "TabularLM",
    "TokenLM",
    "TokenNgramLM",
    "TreeTokenLM",
    "WindowedConverter",
    "convert",
    "load_token_model",
]
