"""Choosing one outcome from a next-byte distribution: temperature, top-k, top-p, min-p.

A choice is a function of the distribution and one uniform number, by inversion of the cumulative
distribution: so a row's text depends on its own seed and distributions alone, never on which other
rows share the batch. torch is imported where it computes: a mistaken option is found before.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

from bytelm.errors import BytelmError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to choose. The filters apply in this order, to the distribution at `temperature`.

    temperature  0 = always the most probable outcome
    top_k        keep the k most probable outcomes; 0 = all
    top_p        keep the smallest set of outcomes with at least this probability
    min_p        keep outcomes at least this fraction as probable as the most probable one
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_k", "top_p", "min_p"):
            kind, value = (Integral if name == "top_k" else Real), getattr(self, name)
            if not isinstance(value, kind):
                whole = "a whole number" if name == "top_k" else "a number"
                raise BytelmError(f"{name} must be {whole}, not {value!r}")
        for name, holds, allowed in (
            ("temperature", 0 <= self.temperature < float("inf"), "a number >= 0"),
            ("top_k", self.top_k >= 0, "a whole number >= 0 (0 = no limit)"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
        ):
            if not holds:
                raise BytelmError(f"{name} must be {allowed}, not {getattr(self, name)}")

    def choose(self, logprobs_BO: Tensor, uniform_B: np.ndarray) -> list[int]:
        """One outcome per row. logprobs (B, 257), -inf = impossible; uniform (B,) in [0, 1)."""
        if self.temperature == 0:
            return logprobs_BO.argmax(-1).tolist()
        return self.draw(self.filter(logprobs_BO), uniform_B)

    def draw(self, p_BO: Tensor, uniform_B: np.ndarray) -> list[int]:
        """One outcome per row of weights (B, 257), which need not be normalised, by inversion."""
        kept_BO = p_BO.numpy()
        cumulative = kept_BO.cumsum(-1)
        target = uniform_B[:, None] * cumulative[:, -1:]
        chosen = (cumulative <= target).sum(-1)
        last = kept_BO.shape[-1] - 1 - (kept_BO[:, ::-1] > 0).argmax(-1)
        return [min(pair) for pair in zip(chosen.tolist(), last.tolist(), strict=True)]

    def probabilities(self, logprobs_BO: Tensor) -> Tensor:
        """(B, 257) float64: with what probability `choose` gives each outcome."""
        import torch

        if self.temperature == 0:
            best = logprobs_BO.cpu().argmax(-1, keepdim=True)
            zeros = torch.zeros(logprobs_BO.shape, dtype=torch.float64)
            return zeros.scatter(-1, best, 1.0)
        kept = self.filter(logprobs_BO)
        return kept / kept.sum(-1, keepdim=True)

    def filter(self, logprobs_BO: Tensor) -> Tensor:
        """(B, 257) float64 probabilities, not normalised, with the excluded outcomes at 0."""
        import torch

        p = torch.softmax(logprobs_BO.cpu().double() / self.temperature, dim=-1)
        if self.top_k and self.top_k < p.shape[-1]:
            # of equal ones the first, as at temperature 0
            best = p.sort(dim=-1, descending=True, stable=True).indices[:, : self.top_k]
            p = torch.zeros_like(p).scatter(-1, best, p.gather(-1, best))
        if self.top_p < 1:
            p = p / p.sum(-1, keepdim=True)
            ordered, place = p.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            p = p.scatter(-1, place, ordered.where(before < self.top_p, 0.0))
        if self.min_p:
            p = p.where(p >= self.min_p * p.amax(-1, keepdim=True), 0.0)
        return p
