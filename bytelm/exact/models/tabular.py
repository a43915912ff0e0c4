"""Token models that are a function of the tokens so far: for tests, baselines and n-grams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError

History = tuple[int, ...]  # the tokens so far, which is also the node


class TabularLM:
    """A `TokenLM` given by a function from the tokens so far to V probabilities.

    Nodes are tuples of ids; nothing is cached.

    >>> lm = TabularLM(lambda history: [0.5, 0.25, 0.25], [b"a", b"b", None], eos_ids={2})
    >>> lm.root(lm.open())[1].exp().tolist()
    [0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        distribution: Callable[[History], Sequence[float] | np.ndarray],
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: Iterable[int] = (),
    ):
        self.distribution = distribution
        self.vocab_bytes = list(vocab_bytes)
        self.eos_ids = set(eos_ids)
        self.start_ids: list[int] = []

    def open(self) -> None:
        return None

    def _logprobs(self, history: History) -> Tensor:
        p = torch.as_tensor(np.asarray(self.distribution(history)), dtype=torch.float64)
        return p.log()

    def root(self, cache: None) -> tuple[History, Tensor]:
        return (), self._logprobs(())

    def extend(self, cache: None, rows: list[tuple[History, int]]) -> tuple[list[History], Tensor]:
        nodes = [(*history, token) for history, token in rows]
        return nodes, torch.stack([self._logprobs(history) for history in nodes])

    def release(self, cache: None, nodes: list[History]) -> None:
        return None


class TokenNgramLM(TabularLM):
    """A token n-gram model with additive smoothing, interpolated over all orders up to `order`.

    p_k(t | h) = (count(h, t) + smoothing · V · p_{k-1}(t | shorter h)) / (count(h) + smoothing · V)
    from the last k - 1 tokens, and p_0 uniform over tokens with bytes and the end ids. Every token
    sequence is a text and is followed by the first of `eos_ids`. `BytelmError` for an order < 1.
    """

    def __init__(
        self,
        sequences: Iterable[Sequence[int]],
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: Iterable[int],
        order: int = 3,
        smoothing: float = 0.01,
    ):
        if order < 1:
            raise BytelmError(f"the order of an n-gram model must be at least 1, not {order}")
        super().__init__(self._interpolate, vocab_bytes, eos_ids=eos_ids)
        end = min(self.eos_ids)
        self.order, self.smoothing = order, smoothing
        self._counts: dict[History, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for sequence in sequences:
            tokens = [*sequence, end]
            for i, token in enumerate(tokens):
                for length in range(min(order, i + 1)):
                    self._counts[tuple(tokens[i - length : i])][token] += 1
        allowed = np.array(
            [data is not None or i in self.eos_ids for i, data in enumerate(self.vocab_bytes)]
        )
        self._uniform = allowed / allowed.sum()

    def _interpolate(self, history: History) -> np.ndarray:
        p = self._uniform
        weight = self.smoothing * len(p)
        for length in range(min(self.order, len(history) + 1)):
            seen = self._counts.get(history[len(history) - length :])
            if seen is None:
                break
            p = p * (weight / (sum(seen.values()) + weight))
            p[list(seen)] += np.array(list(seen.values())) / (sum(seen.values()) + weight)
        return p
