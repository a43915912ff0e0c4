"""What people do at a prompt that ends inside a token, for comparison: nothing, or token healing.

Both read the model at trunks of the same tree as the converter, one row a byte, and return the
next-byte distribution after every prefix of a text.

naive    encode the prompt and read the first byte of the next token
healing  drop the last token of the prompt and let the next one be any that starts with its bytes
         (guidance, Hugging Face `token_healing`)
"""

from __future__ import annotations

import numpy as np

from bytelm.exact import ByteConverter
from bytelm.exact.prefix_tree import Distribution, Trunk, TrunkTree, evaluate

_CHUNK = 256


def cut_distributions(lm: ByteConverter, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(n, 256) natural-log next-byte probabilities before each byte: naive, and healed."""
    assert lm.encoder is not None, "the baselines need the tokenizer"
    root = TrunkTree(lm.lm, lm.index).root
    held = {root: root.tree.start}
    naive, healed = [], []
    for start in range(0, len(text), _CHUNK):
        cuts = range(start, min(start + _CHUNK, len(text)))
        trunks = [root.walk(lm.encoder.encode(text[:n])) for n in cuts]
        wanted = list(dict.fromkeys(t for trunk in trunks for t in (trunk, trunk.parent) if t))
        held.update(zip(wanted, evaluate(wanted), strict=True))
        for trunk in trunks:
            naive.append(_first_bytes(held[trunk]))
            healed.append(_healed(trunk, held))
        held = {root: root.tree.start}
    with np.errstate(divide="ignore"):  # bytes that no token starts with
        return np.log(np.array(naive)), np.log(np.array(healed))


def _first_bytes(distribution: Distribution) -> np.ndarray:
    index = distribution.index
    p = index.split(distribution.p, index.everything, 0)
    return p / p.sum()


def _healed(trunk: Trunk, held: dict[Trunk, Distribution]) -> np.ndarray:
    if trunk.parent is None or trunk.token is None:
        return _first_bytes(held[trunk])
    before = held[trunk.parent]
    index = before.index
    data = index.vocab_bytes[trunk.token]
    assert data is not None
    lo, hi = index.find(data)
    ended = index.ended((lo, hi), len(data))
    longer = index.split(before.p, (ended, hi), len(data))
    p = longer + before.p[lo:ended].sum() * _first_bytes(held[trunk])
    return p / p.sum()
