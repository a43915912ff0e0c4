"""What people do at a prompt that ends inside a token, for comparison: nothing, or token healing.

Both read the model at token prefixes of the same tree as the converter, one row per byte, and
return the next-byte distribution after every prefix of a text.

naive    encode the prompt and read the first byte of the next token
healing  drop the last token of the prompt and let the next one be any that starts with its bytes
         (guidance, Hugging Face `token_healing`)
"""

from __future__ import annotations

import numpy as np

from bytelm.exact import ByteConverter
from bytelm.exact.token_tree import Distribution, TokenPrefix, TokenTree, evaluate

_CHUNK = 256


def cut_distributions(lm: ByteConverter, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(n, 256) natural-log next-byte probabilities before each byte: naive, and healed."""
    assert lm.encoder is not None, "the baselines need the tokenizer"
    root = TokenTree(lm.lm, lm.trie).root
    known = {root: root.tree.start}
    naive, healed = [], []
    for start in range(0, len(text), _CHUNK):
        cuts = range(start, min(start + _CHUNK, len(text)))
        prompts = [root.descend(lm.encoder.encode(text[:n])) for n in cuts]
        wanted = list(dict.fromkeys(p for prompt in prompts for p in (prompt, prompt.parent) if p))
        known.update(zip(wanted, evaluate(wanted), strict=True))
        for prompt in prompts:
            naive.append(_first_bytes(known[prompt]))
            healed.append(_healed(prompt, known))
        known = {root: root.tree.start}
    with np.errstate(divide="ignore"):  # bytes that no token starts with
        return np.log(np.array(naive)), np.log(np.array(healed))


def _first_bytes(distribution: Distribution) -> np.ndarray:
    trie = distribution.trie
    p = trie.split(distribution.p, trie.everything, 0)
    return p / p.sum()


def _healed(prompt: TokenPrefix, known: dict[TokenPrefix, Distribution]) -> np.ndarray:
    if prompt.parent is None or prompt.token is None:
        return _first_bytes(known[prompt])
    before = known[prompt.parent]
    trie = before.trie
    data = trie.vocab_bytes[prompt.token]
    assert data is not None
    lo, hi = trie.find(data)
    ended = trie.ended((lo, hi), len(data))
    longer = trie.split(before.p, (ended, hi), len(data))
    p = longer + before.p[lo:ended].sum() * _first_bytes(known[prompt])
    return p / p.sum()
