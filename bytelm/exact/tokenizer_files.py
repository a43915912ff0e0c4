"""The readers of tokenizer files under the shorter path that scripts import."""

from bytelm.exact.tokenizers.pretokenized import expression_spans
from bytelm.exact.tokenizers.sentencepiece_model import read_sentencepiece
from bytelm.exact.tokenizers.tokenizer_files import read_rwkv, read_tiktoken
from bytelm.exact.tokenizers.tokenizer_json import read_tokenizer_json

__all__ = [
    "expression_spans",
    "read_rwkv",
    "read_sentencepiece",
    "read_tiktoken",
    "read_tokenizer_json",
]
