"""Learn Your Tokens: words pooled into prefix vectors and written by a word-local decoder."""

from bytelm.arch.wordpool.model import WordPool

__all__ = ["WordPool"]
