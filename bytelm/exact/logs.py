"""Sums of probabilities kept as logs."""

import math
from collections.abc import Sequence


def log(x: float) -> float:
    """Natural log with log(0) = -inf."""
    return math.log(x) if x > 0 else -math.inf


def logaddexp(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if b > a:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def logsumexp(values: Sequence[float]) -> float:
    """log of a sum of exponentials; -inf for none."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return -math.inf
    return top + math.log(sum(math.exp(value - top) for value in values))
