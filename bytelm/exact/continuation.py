"""Continue a prompt at the model's native token speed: sample one cover, then ordinary tokens.

A prompt that ends inside a token needs byte probabilities only to get past its end. Draw one cover
of the prompt in proportion to its mass, emit the bytes by which it overshoots, and continue from
its node as the token model always does, one row per token: the bytes have exactly the law of the
converted model given the prompt (Vieira et al. 2025, Proposition 2), at no cost per byte. In mode
`all` with nothing pruned this is the conditional law of the text itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter
from bytelm.exact.hypothesis import Hypothesis
from bytelm.exact.state import ConvertedState
from bytelm.exact.token_tree import Distribution, TokenPrefix, evaluate
from bytelm.exact.tokenizers.prefix_trie import Range
from bytelm.lm.protocol import ByteState


def continue_tokens(
    lm: ByteConverter, prompt: bytes | ByteState = b"", *, max_tokens: int, seed: int = 0
) -> Iterator[bytes]:
    """Pieces of text that follow the prompt: the rest of its last token, then whole tokens.

    prompt: bytes, or a state of `lm`. Stops after `max_tokens` tokens or at the end of the text.
    `BytelmError` if the prompt has probability 0 or `max_tokens` is negative.

    >>> from bytelm.exact import TabularLM, convert
    >>> lm = convert(TabularLM(lambda h: [0, 1, 0] if not h else [0, 0, 1], [b"a", b"abc", None],
    ...     eos_ids={2}))
    >>> list(continue_tokens(lm, b"a", max_tokens=9))
    [b'bc']
    """
    if max_tokens < 0:
        raise BytelmError(f"max_tokens must be at least 0, not {max_tokens}")
    if max_tokens == 0:
        return
    state = lm.start(prompt) if isinstance(prompt, bytes) else prompt
    assert isinstance(state.batch, ConvertedState), "the state is not one of a converted model"
    (beam,) = state.batch.beams
    prediction = beam.expanded()
    rng = np.random.default_rng(seed)
    if prediction.logmass == -math.inf:
        raise BytelmError("the prompt has probability 0 under this model: nothing follows it")
    chosen = _draw(prediction.hypotheses, rng)
    drawn = _token(chosen.distribution, rng, chosen.token_range, may_end=chosen.may_end)
    if drawn is None:
        return
    yield (lm.trie.vocab_bytes[drawn] or b"")[chosen.depth :]
    prefix = chosen.prefix.child(drawn)
    for _ in range(max_tokens - 1):
        (distribution,) = evaluate([prefix])
        token = _token(distribution, rng, lm.trie.everything)
        if token is None:
            return
        yield lm.trie.vocab_bytes[token] or b""
        prefix = _child(prefix, token, distribution)


def _draw(hypotheses: tuple[Hypothesis, ...], rng: np.random.Generator) -> Hypothesis:
    """A hypothesis in proportion to its mass."""
    weights = np.array([hypothesis.logmass for hypothesis in hypotheses])
    p = np.exp(weights - weights.max())
    return hypotheses[int(rng.choice(len(hypotheses), p=p / p.sum()))]


def _token(
    distribution: Distribution,
    rng: np.random.Generator,
    token_range: Range,
    *,
    may_end: bool = True,
) -> int | None:
    """A token of the range in proportion to its probability; None for the end."""
    lo, hi = token_range
    p = np.append(distribution.p[lo:hi], distribution.end if may_end else 0.0)
    chosen = int(rng.choice(len(p), p=p / p.sum()))
    return None if chosen == hi - lo else int(distribution.trie.order[lo + chosen])


def _child(prefix: TokenPrefix, token: int, distribution: Distribution) -> TokenPrefix:
    child = prefix.child(token)
    if child.logprob is None:
        child.set_logprob(distribution)
    return child
