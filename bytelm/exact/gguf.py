"""The reader of GGUF tokenizers under the shorter path that scripts import."""

from bytelm.exact.tokenizers.gguf_tokenizer import EXPRESSIONS, read_gguf_tokenizer, read_metadata

__all__ = ["EXPRESSIONS", "read_gguf_tokenizer", "read_metadata"]
