"""A decoding step of the short convolution that is a layer of its own."""

import torch
from torch import Tensor

from bytelm.nn.short_conv import ConvState, ShortConv
from bytelm.nn.stepping.ops import convolve
from bytelm.nn.stepping.places import Places


class ConvSteps:
    """x (n, D), in float32 or better, -> (n, D) for the rows of `Places`."""

    def __init__(self, module: ShortConv, state: ConvState):
        bias = module.conv1d.bias
        assert bias is not None
        exact = torch.promote_types(bias.dtype, torch.float32)
        self.kernel = module.conv1d.weight.detach().to(exact).squeeze(1).t().contiguous()  # (K, D)
        self.bias = bias.detach().to(exact)
        self.tail = state.tail.clone()

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        if places.rows is None or len(x_nD) == 1:
            return convolve(x_nD, self.tail[places.span], self.kernel, self.bias)
        tail = self.tail.index_select(0, places.index)
        y = convolve(x_nD, tail, self.kernel, self.bias)
        self.tail.index_copy_(0, places.index, tail)
        return y

    def state(self, lengths: Tensor) -> ConvState:
        """The immutable state of the rows."""
        return ConvState(self.tail.clone())
