"""A decoding step of the Mamba-2 mixer.

The state of the recurrence is kept as (B, G, N, heads of the group * P), the transpose of what
`MambaState` holds: then decay, update and read-out are three products over contiguous rows.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from bytelm.nn.mamba2 import Mamba2, MambaState
from bytelm.nn.stepping.ops import linear, rms_norm
from bytelm.nn.stepping.places import Places


class MambaSteps:
    """x (n, D) -> (n, D) for the rows of `Places`."""

    def __init__(self, module: Mamba2, state: MambaState):
        o = module.options
        self._options, self._heads, self._inner = o, module.heads, module.inner
        self._widths = (module.inner, module.inner + 2 * module.shared, module.heads)
        self._mixed_widths = (module.inner, module.shared, module.shared)
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

    def step(self, x_nD: Tensor, places: Places) -> Tensor:
        n = x_nD.shape[0]
        gate, mixed, dt = self._in(x_nD).split(self._widths, dim=-1)
        whole = places.rows is None
        if whole or n == 1:
            tail, ssm = self._tail[places.span], self._ssm[places.span]
        else:
            tail = self._tail.index_select(0, places.index)
            ssm = self._ssm.index_select(0, places.index)
        inputs = torch.cat((tail, mixed[:, None].to(tail.dtype)), dim=1)
        mixed = (inputs.to(mixed.dtype) * self._kernel).sum(1).add_(self._bias)
        y = self._scan(F.silu(mixed, inplace=True), dt, ssm)
        tail.copy_(inputs[:, 1:])
        if not whole and n > 1:
            self._tail.index_copy_(0, places.index, tail)
            self._ssm.index_copy_(0, places.index, ssm)
        return self._out(self._norm(y.mul_(F.silu(gate))))

    def _scan(self, mixed: Tensor, dt: Tensor, ssm: Tensor) -> Tensor:
        """The recurrence and its skip term: (n, inner); writes `ssm`."""
        o, n = self._options, mixed.shape[0]
        x, B, C = mixed.split(self._mixed_widths, dim=-1)
        step_nH = F.softplus(dt.to(self._exact) + self._dt_bias)
        decay_nH = (step_nH * self._A).exp_()
        both = torch.stack((decay_nH, step_nH))[..., None].expand(-1, -1, -1, o.head_dim)
        decay, step = both.reshape(2, n, o.groups, -1).unbind(0)  # (n, G, heads * P)
        gained = step * x.reshape(n, o.groups, -1)
        B, C = (t.reshape(n, o.groups, o.d_state).to(self._exact) for t in (B, C))
        ssm.mul_(decay[:, :, None]).addcmul_(B[..., None], gained[:, :, None])
        y = torch.matmul(C[:, :, None], ssm).reshape(n, self._inner).to(x.dtype)
        return torch.addcmul(y, x, self._D)

    def state(self, lengths: Tensor) -> MambaState:
        """The immutable state of the rows."""
        ssm = rearrange(
            self._ssm,
            "b g n (r p) -> b (g r) p n",
            p=self._options.head_dim,
        )
        return MambaState(self._tail.clone(), ssm.clone(memory_format=torch.contiguous_format))
