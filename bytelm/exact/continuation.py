"""Continue a prompt at the model's native token speed: sample one cover, then ordinary tokens.

A prompt that ends inside a token needs byte probabilities only to get past its end. Draw one cover
of the prompt in proportion to its mass, emit the bytes by which it overshoots, and go on from its
node as the token model always does, one row a token: the bytes have exactly the law of the
converted model given the prompt (Vieira et al. 2024, Proposition 2), at no cost a byte. In mode
`all` with nothing pruned this is the conditional law of the text itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bytelm.errors import BytelmError
from bytelm.exact.converter import ByteConverter, ConvertedState
from bytelm.exact.hypothesis import Branch
from bytelm.exact.prefix_tree import Distribution, Trunk, evaluate
from bytelm.exact.text_beam import open_rows
from bytelm.lm.protocol import ByteState


def continue_tokens(
    lm: ByteConverter, prompt: bytes | ByteState = b"", *, max_tokens: int, seed: int = 0
) -> Iterator[bytes]:
    """Pieces of text that follow the prompt: the rest of its last token, then whole tokens.

    Stops after `max_tokens` tokens or at the end of the text. `BytelmError` if the prompt has
    probability 0.

    >>> from bytelm.exact import TabularLM, convert
    >>> lm = convert(TabularLM(lambda h: [0, 1, 0] if not h else [0, 0, 1], [b"a", b"abc", None],
    ...     eos_ids={2}))
    >>> list(continue_tokens(lm, b"a", max_tokens=9))
    [b'bc']
    """
    state = lm.start(prompt) if isinstance(prompt, bytes) else prompt
    assert isinstance(state.batch, ConvertedState), "the state is not one of a converted model"
    (row,) = state.batch._rows
    open_rows([row])
    assert row.opened is not None
    rng = np.random.default_rng(seed)
    if row.opened.logmass == -math.inf:
        raise BytelmError("the prompt has probability 0 under this model: nothing follows it")
    branch = _draw(row.opened.branches, rng)
    drawn = _last_token(branch, rng)
    if drawn is None:
        return
    yield (lm.index.vocab_bytes[drawn] or b"")[branch.depth :]
    trunk = branch.trunk.child(drawn)
    for _ in range(max_tokens - 1):
        (distribution,) = evaluate([trunk])
        token = _token(distribution, rng)
        if token is None:
            return
        yield lm.index.vocab_bytes[token] or b""
        trunk = _follow(trunk, token, distribution)


def _draw(branches: tuple[Branch, ...], rng: np.random.Generator) -> Branch:
    """A branch in proportion to its mass."""
    weights = np.array([branch.logmass for branch in branches])
    p = np.exp(weights - weights.max())
    return branches[int(rng.choice(len(branches), p=p / p.sum()))]


def _last_token(branch: Branch, rng: np.random.Generator) -> int | None:
    """A token of the branch's range in proportion to its probability; None for the end."""
    return _token(branch.distribution, rng, branch.places, may_end=branch.ends)


def _token(
    distribution: Distribution,
    rng: np.random.Generator,
    places: tuple[int, int] | None = None,
    *,
    may_end: bool = True,
) -> int | None:
    lo, hi = places or distribution.index.everything
    p = np.append(distribution.p[lo:hi], distribution.end if may_end else 0.0)
    chosen = int(rng.choice(len(p), p=p / p.sum()))
    return None if chosen == hi - lo else int(distribution.index.order[lo + chosen])


def _follow(trunk: Trunk, token: int, distribution: Distribution) -> Trunk:
    child = trunk.child(token)
    if child.logprob is None:
        child.weigh(distribution)
    return child
