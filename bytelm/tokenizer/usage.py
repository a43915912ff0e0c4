"""How well a vocabulary fits data: bytes per token by class of file, and how much of it is used."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from bytelm.tokenizer.bpe import BinaryBPE


def usage_by_class(bpe: BinaryBPE, documents: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Totals over (class, bytes) documents, each encoded whole.

    Returns `bytes`, `tokens`, `bytes_per_token`, `used` (tokens that occur), `without_apk`
    (bytes per token outside compressed packages) and `classes` with the first three for each.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    seen = np.zeros(bpe.vocab_size, bool)
    for kind, data in documents:
        ids = bpe.encode(data)
        seen[ids] = True
        counts[kind][0] += len(data)
        counts[kind][1] += len(ids)
    plain = [pair for kind, pair in counts.items() if kind != "apk"]
    return {
        **_totals(counts.values()),
        "without_apk": _totals(plain)["bytes_per_token"],
        "used": int(seen.sum()),
        "classes": {kind: _totals([counts[kind]]) for kind in sorted(counts)},
    }


def _totals(pairs: Iterable[list[int]]) -> dict[str, Any]:
    size, tokens = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0, 0)
    ratio = round(size / tokens, 4) if tokens else None
    return {"bytes": size, "tokens": tokens, "bytes_per_token": ratio}
