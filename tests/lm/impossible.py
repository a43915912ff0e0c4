"""The policy of `ByteLM` for what is impossible, as a check of any model on any text.

It is part of the contract of `tests/lm/test_contract.py` for models to which nothing is impossible,
and of `tests/exact/test_impossible.py` for those of small vocabularies.
"""

import math

import torch

from bytelm.lm.protocol import ByteLM


def check_impossible(lm: ByteLM, text: bytes, others: bytes, *, tolerance: float = 1e-9) -> bool:
    """Walk through `text`; at each byte try the bytes `others` as well. -> whether the text is
    possible."""
    state, possible, steps = lm.start(), True, []
    for i in range(len(text) + 1):
        logprobs = state.logprobs().double()
        assert not bool(logprobs.isnan().any())
        assert (state.logprob > -math.inf) == possible
        if possible:
            assert abs(float(logprobs.logsumexp(0))) < tolerance
        else:
            assert bool(logprobs.isneginf().all()), "nothing follows an impossible text"
        for byte in {*others}:
            fed = state.feed(bytes([byte]))
            assert (fed.logprob > -math.inf) == (float(logprobs[byte]) > -math.inf), (
                text[:i],
                byte,
            )
        if i == len(text):
            steps.append(logprobs[256])
            break
        steps.append(logprobs[text[i]])
        possible = bool(logprobs[text[i]] > -math.inf)
        state = state.feed(text[i : i + 1])
    scores = torch.stack(steps)
    compare = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(lm.score_with_end(text), scores, **compare)
    at_once = lm.start().feed(text)
    assert not math.isnan(at_once.logprob)
    torch.testing.assert_close(at_once.logprobs(), state.logprobs(), **compare)
    ahead = lm.start().batch.read_ahead([text])
    found, *_ = ahead.logprobs
    if len(found) == len(text) > 0:
        torch.testing.assert_close(found[-1], state.logprobs(), **compare)
        assert (float(ahead.state([len(text)]).logprob[0]) > -math.inf) == possible
    total = torch.tensor(at_once.logprob, dtype=torch.float64)
    torch.testing.assert_close(total, scores[:-1].sum(), **compare)
    return possible
