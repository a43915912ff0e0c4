"""`Linear` whose input may be of another precision than its weights.

Norms give float32 or better whatever the weights are, and the residual stream is kept in it. Under
autocast torch casts both; a model that was itself converted (`model.bfloat16()`) has to cast its
inputs, and does so here, once for every layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """As `torch.nn.Linear`; computes in the dtype of its weights, or in that of autocast."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        return F.linear(x, self.weight, self.bias)
