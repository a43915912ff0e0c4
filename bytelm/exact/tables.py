"""`TokenizerTables` and the encoders' builders under the shorter path that scripts import."""

from bytelm.exact.tokenizers.tables import TokenizerTables, merge_encoder, rank_encoder

__all__ = ["TokenizerTables", "merge_encoder", "rank_encoder"]
