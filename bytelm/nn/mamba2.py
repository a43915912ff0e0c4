"""The Mamba-2 mixer (Dao & Gu 2024, section 7), parameter names as in the published checkpoints.

in_proj gives gate z, the convolved part [x, B, C], and the step sizes dt; the SSD runs over heads
of width P; the gated norm multiplies by silu(z) first and normalises after. Steps, decays and the
carried state stay in float32 or better whatever the activations are.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.conv import causal_conv_silu, latest_inputs
from bytelm.nn.gated_norm import gated_norm
from bytelm.nn.kernels import Backend, fused_scan
from bytelm.nn.linear import Linear
from bytelm.nn.norms import RMSNorm
from bytelm.nn.segments import Segments
from bytelm.nn.ssd import ssd, ssd_step
from bytelm.nn.state import State


@dataclass(frozen=True, kw_only=True)
class SSMOptions:
    """d_state N, d_conv K, expand (inner width / D), head_dim P, groups G, chunk Q (speed only)."""

    d_state: int = 128
    d_conv: int = 4
    expand: int = 2
    head_dim: int = 64
    groups: int = 1
    chunk: int = 64
    backend: Backend = "auto"


@dataclass(frozen=True)
class MambaState(State):
    """tail (B, K-1, C): the last inputs of the convolution; ssm (B, H, P, N) in float32+."""

    tail: Tensor
    ssm: Tensor


class Mamba2(nn.Module):
    """(B, L, D) -> (B, L, D)."""

    def __init__(self, dim: int, options: SSMOptions):
        super().__init__()
        self.options = options
        self.inner = options.expand * dim
        self.heads = self.inner // options.head_dim
        self.shared = options.groups * options.d_state  # width of B, and of C
        channels = self.inner + 2 * self.shared
        self.in_proj = Linear(dim, self.inner + channels + self.heads, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, options.d_conv, groups=channels)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(self.inner, groups=options.groups)
        self.out_proj = Linear(self.inner, dim, bias=False)
        self.reset_ssm()

    @torch.no_grad()
    def reset_ssm(self) -> None:
        """A ~ U(1, 16); initial step sizes log-uniform in [1e-3, 1e-1]; D = 1."""
        if self.A_log.is_meta:
            return
        self.A_log.uniform_(1, 16).log_()
        dt = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
        dt.clamp_(min=1e-4)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus^-1(dt)
        self.D.fill_(1)

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        gate, mixed, dt = self._project(x_BLD)
        mixed = self._convolve(mixed, None, segments.document_ids)
        y, x, _ = self._scan(mixed, self._steps(dt), None, segments.document_ids)
        return self._finish(y, x, gate)

    def init_state(self, batch_size: int) -> MambaState:
        """The state before the first position of `batch_size` rows: zeros."""
        weight, o = self.in_proj.weight, self.options
        exact = torch.promote_types(weight.dtype, torch.float32)
        channels = self.inner + 2 * self.shared
        return MambaState(
            weight.new_zeros(batch_size, o.d_conv - 1, channels),
            weight.new_zeros(batch_size, self.heads, o.head_dim, o.d_state, dtype=exact),
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: MambaState
    ) -> tuple[Tensor, MambaState]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), state)."""
        gate, mixed, dt = self._project(x_BLD)
        dt = self._steps(dt)
        tail = latest_inputs(state.tail, mixed, counts)
        mixed = self._convolve(mixed, state.tail, None)
        if counts is not None:
            valid = torch.arange(x_BLD.shape[1], device=x_BLD.device) < counts[:, None]
            dt = dt * valid[..., None]
        y, x, ssm = self._scan(mixed, dt, state.ssm, None)
        return self._finish(y, x, gate), MambaState(tail, ssm)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        widths = (self.inner, self.inner + 2 * self.shared, self.heads)
        gate, mixed, dt = self.in_proj(x).split(widths, dim=-1)
        return gate, mixed, dt

    def _steps(self, dt_BLH: Tensor) -> Tensor:
        exact = torch.promote_types(dt_BLH.dtype, torch.float32)
        return F.softplus(dt_BLH.to(exact) + self.dt_bias)

    def _convolve(self, mixed: Tensor, tail: Tensor | None, documents: Tensor | None) -> Tensor:
        weight, bias = self.conv1d.weight.squeeze(1), self.conv1d.bias
        assert bias is not None
        return causal_conv_silu(mixed, weight, bias, tail=tail, document_ids=documents)

    def _scan(
        self, mixed: Tensor, dt: Tensor, state: Tensor | None, documents: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The SSD over the convolved inputs: y and its input x (B, L, H, P), the final state."""
        o = self.options
        x, B, C = mixed.split((self.inner, self.shared, self.shared), dim=-1)
        x = x.unflatten(-1, (self.heads, o.head_dim))
        B, C = (t.unflatten(-1, (o.groups, o.d_state)) for t in (B, C))
        A = -self.A_log.to(dt.dtype).exp()
        kernel = fused_scan(o.backend, x)
        if kernel is not None:
            seq_idx = None if documents is None else documents.int()
            y, final = kernel(
                x, dt, A, B, C, 256, initial_states=state, seq_idx=seq_idx, return_final_states=True
            )
        elif x.shape[1] == 1 and state is not None:
            y, final = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
            y = y[:, None]
        else:
            y, final = ssd(x, dt, A, B, C, chunk=o.chunk, state_BHPN=state, document_ids=documents)
        return y, x, final

    def _finish(self, y_BLHP: Tensor, x_BLHP: Tensor, gate: Tensor) -> Tensor:
        return self.out_proj(gated_norm(y_BLHP, x_BLHP, self.D, gate, self.norm))
