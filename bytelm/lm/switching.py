"""Fixed share: a mixture of models in which the right one may change at any byte.

The hidden Markov model over members with prior w: between two bytes the member stays with
probability 1 - rate and is drawn again from w otherwise (Herbster & Warmuth 1998, "Tracking the
best expert", fixed share). The forward recursion costs O(K) per byte, and the loss is bounded:
against the best sequence of members with S switches in n bytes, at most
(S + 1) log(1 / min w) + S log(1 / rate) + (n - S) log(1 / (1 - rate)) nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 1 / 512  # costs 0.003 bits per byte where nothing ever switches, and 9 bits per switch


def switch(log_w: Tensor, log_prior: Tensor, rate: float) -> Tensor:
    """Log weights (..., K) of the next byte's member from the posterior `log_w` after this one."""
    return torch.logaddexp(log_w + math.log1p(-rate), log_prior + math.log(rate))


def fixed_share(
    log_w: Tensor,
    steps_KN: Tensor,
    log_prior: Tensor,
    rate: float,
    possible_K: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Read N bytes: (N,) log-probs of each under the ensemble, and the (K,) log weights after them.

    log_w (K,): weights before the first byte; steps_KN: the members' log-probs of the bytes;
    possible_K (K,) bool: which members hold the text so far possible (default: all). The others
    predict nothing, and their weight is shared by the rest. Where nobody is left it is all -inf.

    >>> w = torch.tensor([0.5, 0.5]).log()
    >>> steps, after = fixed_share(w, torch.tensor([[0.9], [0.1]]).log(), w, 0.5)
    >>> steps.exp().tolist(), [round(x, 2) for x in after.exp().tolist()]
    ([0.5], [0.7, 0.3])
    """
    possible = torch.ones_like(log_w, dtype=torch.bool) if possible_K is None else possible_K
    gained = []
    for step_K in steps_KN.T:
        open_w = log_w.masked_fill(~possible, -math.inf)
        total = (open_w + step_K).logsumexp(0)
        if total == -math.inf:
            gained.append(total)
            possible = torch.zeros_like(possible)
            continue
        gained.append(total - open_w.logsumexp(0))
        log_w = switch(open_w + step_K - total, log_prior, rate)
        possible = possible & ~step_K.isneginf()
    return torch.stack(gained) if gained else steps_KN.new_zeros(0), log_w
