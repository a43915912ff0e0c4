"""Shortening a sequence inside an encoder by making several positions one: two baselines of MrT5.

`BoundaryMerge` learns where segments end and averages them (Nawrot et al. 2023, arXiv:2211.09761),
`ConvPool` joins every `stride` positions by a convolution, as CANINE does (Clark et al. 2022). What
stands for several positions has the place of the first of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.deletion import Shortened, compact, valid_positions
from bytelm.nn.linear import Linear
from bytelm.nn.norms import RMSNorm

_TEMPERATURE = 0.5  # of the relaxed Bernoulli draws


class BoundaryMerge(nn.Module):
    """Segments that end where a small net says so; the last position of a row always ends one.

    The number of ends is held to a binomial prior with probability 1 - rate. The net is trained
    through the weights of the average, which count the ends before each position (straight-through
    estimates of relaxed Bernoulli draws in training, of the probabilities otherwise).
    """

    def __init__(self, dim: int, *, hidden: int, rate: float):
        super().__init__()
        self.prior = 1 - rate
        self.norm = RMSNorm(dim, eps=1e-6)
        self.hidden = Linear(dim, hidden)
        self.end = Linear(hidden, 1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier-uniform weights, biases -1."""
        for linear in (self.hidden, self.end):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.constant_(linear.bias, -1.0)

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, lengths: Tensor) -> Shortened:
        B, L, D = x_BLD.shape
        x = self.norm(x_BLD)
        logits = self.end(F.gelu(self.hidden(x)))[..., 0].to(x.dtype)
        soft = torch.sigmoid(self._noisy(logits))
        valid = valid_positions(L, lengths)
        last = torch.arange(L, device=lengths.device) == lengths[:, None] - 1
        ends = ((soft > 0.5) & valid | last).to(soft.dtype)
        ends = ends + (soft - soft.detach()) * valid  # its gradient is that of `soft`
        count = ends.cumsum(dim=1) - ends  # ends before each position
        number = count.detach().round().long()
        weight = (1 + count - count.detach()) * valid
        left = (ends.detach().round() * valid).sum(dim=1).long()
        M = int(left.max())
        number = number.clamp(max=M - 1)
        total = x.new_zeros(B, M, D).scatter_add(
            1, number[..., None].expand(-1, -1, D), weight[..., None] * x
        )
        mass = x.new_zeros(B, M).scatter_add(1, number, weight)
        begins = F.pad(ends.detach().round()[:, :-1] > 0, (1, 0), value=True)
        return Shortened(
            x=total / mass.clamp(min=1e-9)[..., None],
            lengths=left,
            positions=compact(x_BLD.detach(), begins, lengths).positions,
            deleted=1 - left.sum() / lengths.sum(),
            aux={"prior": self._prior_loss(ends, valid, lengths)},
        )

    def _noisy(self, logits: Tensor) -> Tensor:
        """The logits, in training those of a relaxed draw."""
        if not self.training:
            return logits
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        return (logits + torch.logit(uniform)) / _TEMPERATURE

    def _prior_loss(self, ends: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
        """() mean over rows of -log Binomial(number of ends | length, prior) / length."""
        binomial = torch.distributions.Binomial(
            lengths.to(ends.dtype), ends.new_tensor(self.prior), validate_args=False
        )
        return -(binomial.log_prob((ends * valid).sum(dim=1)) / lengths).mean()


class ConvPool(nn.Module):
    """Every `stride` positions become one; the last of a row may stand for fewer."""

    def __init__(self, dim: int, *, stride: int):
        super().__init__()
        self.stride = stride
        self.norm = RMSNorm(dim, eps=1e-6)
        self.conv = nn.Conv1d(dim, dim, stride, stride)

    def forward(self, x_BLD: Tensor, ids_BL: Tensor, lengths: Tensor) -> Shortened:
        L = x_BLD.shape[1]
        x = self.norm(x_BLD) * valid_positions(L, lengths)[..., None]
        x = F.pad(x, (0, 0, 0, -L % self.stride)).to(self.conv.weight.dtype)
        pooled = F.gelu(self.conv(x.transpose(1, 2)).transpose(1, 2)).to(x_BLD.dtype)
        left = -(-lengths // self.stride)
        positions = self.stride * torch.arange(pooled.shape[1], device=lengths.device)
        return Shortened(
            x=pooled,
            lengths=left,
            positions=positions[None],
            deleted=1 - left.sum() / lengths.sum(),
        )
