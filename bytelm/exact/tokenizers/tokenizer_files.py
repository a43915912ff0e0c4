"""Vocabulary files of tiktoken (ranks) and RWKV as tables."""

from __future__ import annotations

import ast
import base64
import gzip
from collections.abc import Mapping
from pathlib import Path

from bytelm.errors import DataError
from bytelm.exact.tokenizers.encoders import GreedyEncoder
from bytelm.exact.tokenizers.piece_automaton import PieceAutomaton
from bytelm.exact.tokenizers.prefix_trie import PrefixTrie
from bytelm.exact.tokenizers.tables import TokenizerTables, rank_encoder


def read_tiktoken(
    path: str | Path, spans: PieceAutomaton | None, *, specials: Mapping[str, int] | None = None
) -> TokenizerTables:
    """Tables of a rank file (one `base64 rank` per line, possibly gzipped).

    spans: its pre-tokenizer, which the file does not hold (`expression_spans` makes one of a
    regular expression). specials: names -> ids. `DataError` if the file is of another kind.
    """
    raw = Path(path).read_bytes()
    lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines()
    try:
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in lines if line)}
    except ValueError as error:
        raise DataError(f"{path} is not a tiktoken rank file") from error
    specials = dict(specials or {})
    vocab: list[bytes | None] = [None] * (max([*ranks.values(), *specials.values()]) + 1)
    for data, rank in ranks.items():
        vocab[rank] = data
    tables = TokenizerTables(vocab, rank_encoder(ranks, spans), specials=specials)
    tables.set_ends()
    return tables


def read_rwkv(path: str | Path) -> TokenizerTables:
    """Tables of an RWKV World vocabulary: one `id literal length` per line, greedy longest match.

    Id 0, which is not listed, ends a text and stands before the first. `DataError` if a length is
    not that of its literal.
    """
    entries: dict[int, bytes] = {}
    for line in Path(path).read_text().splitlines():
        number, rest = line.split(" ", 1)
        literal, length = rest.rsplit(" ", 1)
        value = ast.literal_eval(literal)
        data = value.encode() if isinstance(value, str) else value
        if len(data) != int(length):
            raise DataError(f"{path}: token {number} has {len(data)} bytes, not {length}")
        entries[int(number)] = data
    vocab = [entries.get(i) for i in range(max(entries) + 1)]
    tables = TokenizerTables(vocab, GreedyEncoder(PrefixTrie(vocab)))
    tables.specials, tables.eos_ids, tables.start_ids = {"<|endoftext|>": 0}, {0}, [0]
    return tables
