"""Shortening a sequence inside an encoder by leaving positions out: MrT5's gate and two baselines.

The gate (Kallini et al. 2025, arXiv:2410.20771, section 3.1) gives each position a number between 0
(keep) and `scale` (delete). Added to attention scores it hides positions softly, which can be
learned; compared with a threshold it says which positions are taken out, which saves time. The
baselines choose positions without learning: a random share of each row, or the tail of each
segment between separators. They look at one row at a time, so a row never depends on its batch.
"""

import math
import string
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bytelm.nn.linear import Linear
from bytelm.nn.norms import RMSNorm
from bytelm.vocab import END

SEPARATORS = (*(string.punctuation + " \t\n").encode(), END)
_SPREAD = 0.05  # standard deviation of the share that random deletion draws in training
_MULTIPLIER, _STEP = 6364136223846793005, 0x1E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True)
class Shortened:
    """A shorter sequence.

    x          (B, M, D), of which row b has lengths[b] >= 1 valid positions
    positions  (B or 1, M) where each stood in the original: distances stay those of the original
    gates      (B, M) what is added to the scores of each as a key; None = nothing
    deleted    share of the original's valid positions that is gone, or would be
    aux        extra loss terms
    """

    x: Tensor
    lengths: Tensor
    positions: Tensor
    deleted: Tensor
    gates: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)


def valid_positions(length: int, lengths: Tensor) -> Tensor:
    """(B, L) bool."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def compact(x_BLD: Tensor, keep_BL: Tensor, lengths: Tensor) -> Shortened:
    """The kept positions, packed to the left of each row. A row of which nothing is kept keeps its
    first position: attention needs a key."""
    keep = keep_BL & valid_positions(x_BLD.shape[1], lengths)
    keep[:, 0] |= ~keep.any(dim=1)
    left = keep.sum(dim=1)
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(left.max())]
    x = x_BLD.gather(1, order[..., None].expand(-1, -1, x_BLD.shape[2]))
    deleted = 1 - left.sum() / lengths.sum()
    return Shortened(x=x, lengths=left, positions=order, deleted=deleted)


class DeleteGate(nn.Module):
    """g = scale * sigmoid(-x), x = w . norm(h) + b. b begins at 1, so most is kept at first."""

    def __init__(self, dim: int, *, scale: float, threshold: float, norm: bool):
        super().__init__()
        self.scale = scale
        self.least = math.log((1 - threshold) / threshold)  # of the logit of what is kept
        self.norm = RMSNorm(dim, eps=1e-6) if norm else None
        self.score = Linear(dim, 1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier-uniform weights, bias 1."""
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.ones_(self.score.bias)

    def forward(self, x_BLD: Tensor, *, noise: bool = False) -> Tensor:
        """Logits (B, L), in float32 or better; noise: with Gumbel noise."""
        x = x_BLD if self.norm is None else self.norm(x_BLD)
        logits = self.score(x)[..., 0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if noise:
            logits = logits - torch.empty_like(logits).exponential_().clamp(min=1e-10).log()
        return logits

    def gates(self, logits: Tensor) -> Tensor:
        """What is added to scores, between `scale` and 0."""
        return self.scale * torch.sigmoid(-logits)

    def kept(self, logits: Tensor) -> Tensor:
        """Which positions stay where deletion is hard."""
        return logits > self.least


class RandomDeletion(nn.Module):
    """Deletes round(rate * length) positions of each row, all equally likely.

    In training both are drawn anew, the rate from N(rate, 0.05); otherwise the draw is a function
    of the row's ids alone, so that results repeat.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, lengths: Tensor) -> Shortened:
        rates = torch.full(lengths.shape, self.rate, device=lengths.device)
        if self.training:
            rates = (rates + _SPREAD * torch.randn_like(rates)).clamp(0, 1)
            scores = torch.rand(ids_BL.shape, device=ids_BL.device)
        else:
            scores = _hashes(ids_BL, lengths)
        valid = valid_positions(ids_BL.shape[1], lengths)
        scores = scores.masked_fill(~valid, torch.inf)
        rank = scores.argsort(dim=1).argsort(dim=1)
        gone = (rates * lengths).round().long()
        return compact(x_BLD, rank >= gone[:, None], lengths)


def _hashes(ids_BL: Tensor, lengths: Tensor) -> Tensor:
    """(B, L) numbers in [0, 1) that look random and are a function of each row's valid ids."""
    at = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    powers = torch.full_like(at, _MULTIPLIER).cumprod(dim=0)  # modulo 2^64, as all that follows
    row = ((ids_BL + 1) * powers * (at < lengths[:, None])).sum(dim=1)
    mixed = (row[:, None] + at * _STEP) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> 31)) * _MULTIPLIER
    return ((mixed >> 33) & 0x3FFFFFFF).double() / 2**30


class FixedDeletion(nn.Module):
    """Keeps the first ceil((1 - rate) * n) positions of each segment of n; a segment begins at a
    white-space or punctuation byte, or at EOS."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, lengths: Tensor) -> Shortened:
        at = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        begins = torch.isin(ids_BL, torch.tensor(SEPARATORS, device=ids_BL.device))
        number = begins.long().cumsum(dim=1)
        first = torch.where(begins, at, 0).cummax(dim=1).values
        valid = valid_positions(len(at), lengths).long()
        sizes = ids_BL.new_zeros(len(ids_BL), len(at) + 1)
        sizes = sizes.scatter_add(1, number, valid).gather(1, number)
        return compact(x_BLD, at - first < ((1 - self.rate) * sizes).ceil(), lengths)
