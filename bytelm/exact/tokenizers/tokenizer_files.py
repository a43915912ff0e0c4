"""Vocabulary files of tiktoken (ranks) and RWKV as tables."""

from __future__ import annotations

import ast
import base64
from collections.abc import Mapping
from pathlib import Path

from bytelm.damage import gunzip, id_count, malformed
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
    raw, specials = Path(path).read_bytes(), dict(specials or {})
    with malformed(path, "a tiktoken rank file", error=DataError):
        lines = [line for line in gunzip(raw).splitlines() if line]
        ranks = {
            base64.b64decode(token, validate=True): int(rank)
            for token, rank in (line.split() for line in lines)
        }
        if not len(lines) == len(ranks) == len(set(ranks.values())):
            raise ValueError("it has a token or a rank twice")
        vocab: list[bytes | None] = [None] * id_count([*ranks.values(), *specials.values()])
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
    raw, entries = Path(path).read_bytes(), dict[int, bytes]()
    with malformed(path, "an RWKV vocabulary", error=DataError):
        for line in raw.decode("utf-8").splitlines():
            number, rest = line.split(" ", 1)
            literal, length = rest.rsplit(" ", 1)
            value = ast.literal_eval(literal)
            data = value.encode() if isinstance(value, str) else value
            if not isinstance(data, bytes) or len(data) != int(length):
                size = f"{len(data)} bytes" if isinstance(data, bytes) else "no bytes"
                raise DataError(f"{path}: token {number} has {size}, not {length}")
            if int(number) in entries or int(number) < 1:
                raise ValueError(f"the id {number} is there twice, or is none of a token")
            entries[int(number)] = data
        vocab = [entries.get(i) for i in range(id_count(entries))]
        tables = TokenizerTables(vocab, GreedyEncoder(PrefixTrie(vocab)))
        tables.specials, tables.eos_ids, tables.start_ids = {"<|endoftext|>": 0}, {0}, [0]
        return tables
