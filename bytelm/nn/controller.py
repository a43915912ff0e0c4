"""`RateController`: a PI controller that finds the weight of a loss which gives a wanted rate.

error = target - rate; P <- 0.9 P + 0.1 k_p error; I <- I + k_i error; alpha = max(0, P + I)
(Kallini et al. 2025, arXiv:2410.20771, section 3.2). Its memory is a buffer, so it is in every
checkpoint; it is told the rate once per optimizer step, measured over all ranks and micro-batches,
so it does not depend on how a batch was cut.
"""

import torch
from torch import Tensor, nn


class RateController(nn.Module):
    """alpha begins as `alpha` (the integral part); gains k_p and k_i.

    >>> controller = RateController(target=0.5, k_p=0.5, k_i=0.1)
    >>> controller.observe(0.3)
    >>> round(float(controller.alpha), 6)
    0.03
    """

    def __init__(self, *, target: float, k_p: float, k_i: float, alpha: float = 0.0):
        super().__init__()
        self.target, self.k_p, self.k_i = target, k_p, k_i
        self.memory: Tensor
        self.register_buffer("memory", torch.tensor([0.0, alpha], dtype=torch.float32))

    @property
    def alpha(self) -> Tensor:
        """() the weight."""
        return self.memory.sum().clamp(min=0)

    @torch.no_grad()
    def observe(self, rate: float) -> None:
        """Take one step of control after the rate that the last step of training had."""
        error = self.target - rate
        self.memory.mul_(self.memory.new_tensor([0.9, 1.0]))
        self.memory.add_(self.memory.new_tensor([0.1 * self.k_p * error, self.k_i * error]))
