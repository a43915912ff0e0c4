"""Tokenizers as tables of token bytes, and the encoders of a growing text."""
