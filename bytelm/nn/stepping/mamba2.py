"""A decoding step of the Mamba-2 mixer.

The state of the recurrence is kept as (B, G, N, heads of the group * P), the transpose of what
`MambaState` holds: then decay, update and read-out are three products over contiguous rows.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.mamba2 import Mamba2, MambaState
from bytelm.nn.stepping.ops import convolve, linear, rms_norm
from bytelm.nn.stepping.places import Places


class MambaSteps:
    """x (n, D) -> (n, D) for the rows of `Places`."""

    def __init__(self, module: Mamba2, state: MambaState):
        self.module, o = module, module.options
        self._options, self._heads, self._inner = o, module.heads, module.inner
        self._widths = [module.inner, module.inner + 2 * module.shared, module.heads]
        self._mixed_widths = [module.inner, module.shared, module.shared]
        self._in, self._out = linear(module.in_proj), linear(module.out_proj)
        self._norm = rms_norm(module.norm)
        exact = torch.promote_types(module.in_proj.weight.dtype, torch.float32)
        bias = module.conv1d.bias
        assert bias is not None
        self._kernel = module.conv1d.weight.detach().squeeze(1).t().contiguous()  # (K, C)
        self._bias = bias.detach()
        self._dt_bias = module.dt_bias.detach().to(exact)
        self._A = -module.A_log.detach().to(exact).exp()
        self._D = module.D.detach().to(self._kernel.dtype).repeat_interleave(o.head_dim)
        self._exact = exact
        self._tail = state.tail.clone()
        self._ssm = rearrange(state.ssm, "b (g r) p n -> b g n (r p)", g=o.groups).contiguous()
        if self._ssm.data_ptr() == state.ssm.data_ptr():  # a transpose of nothing is no copy
            self._ssm = self._ssm.clone()

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """What follows from the weights: convolution (K, C) and its bias, dt_bias, A, and the skip
        weights of all channels."""
        return self._kernel, self._bias, self._dt_bias, self._A, self._D

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """tails (R, K-1, C) and states (R, G, N, channels of a group)."""
        return self._tail, self._ssm

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        n = x_nD.shape[0]
        gate, mixed, dt = self._in(x_nD).split_with_sizes(self._widths, dim=-1)
        conv = self._kernel, self._bias
        if places.rows is None:
            y = self._scan(convolve(mixed, self._tail, *conv), dt, self._ssm)
        elif n == 1:
            span = places.span
            y = self._scan(convolve(mixed, self._tail[span], *conv), dt, self._ssm[span])
        else:
            tail = self._tail.index_select(0, places.index)
            ssm = self._ssm.index_select(0, places.index)
            y = self._scan(convolve(mixed, tail, *conv), dt, ssm)
            self._tail.index_copy_(0, places.index, tail)
            self._ssm.index_copy_(0, places.index, ssm)
        return self._out(self._norm(y.mul_(F.silu(gate))))

    def _scan(self, mixed: Tensor, dt: Tensor, ssm: Tensor) -> Tensor:
        """The recurrence and its skip term: (n, inner); writes `ssm`."""
        o, n = self._options, mixed.shape[0]
        x, B, C = mixed.split_with_sizes(self._mixed_widths, dim=-1)
        step_nH = F.softplus(dt + self._dt_bias)
        decay_nH = (step_nH * self._A).exp_()
        # of every channel instead of every head: (2, n, inner), decays first
        wide = torch.stack((decay_nH, step_nH)).unsqueeze(-1).expand(-1, -1, -1, o.head_dim)
        wide = wide.reshape(2, n, self._inner)
        gained = (wide[1] * x).view(n, o.groups, 1, -1)
        decay = wide[0].view(n, o.groups, 1, -1)
        if B.dtype is not self._exact:
            B, C = B.to(self._exact), C.to(self._exact)
        ssm.mul_(decay).addcmul_(B.reshape(n, o.groups, -1, 1), gained)
        y = torch.matmul(C.reshape(n, o.groups, 1, -1), ssm).view(n, self._inner)
        return torch.addcmul(y if y.dtype is x.dtype else y.to(x.dtype), x, self._D)

    def state(self, lengths: Tensor) -> MambaState:
        """The immutable state of the rows."""
        ssm = rearrange(
            self._ssm,
            "b g n (r p) -> b (g r) p n",
            p=self._options.head_dim,
        )
        return MambaState(self._tail.clone(), ssm.clone(memory_format=torch.contiguous_format))
