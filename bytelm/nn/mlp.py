"""The gated feed-forward network SwiGLU (Shazeer 2020): fc2(value * silu(gate))."""

from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.linear import Linear


class SwiGLU(nn.Module):
    """(B, L, D) -> (B, L, D). fc1 gives value, then gate: the order of the released H-Nets."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, 2 * hidden, bias=False)
        self.fc2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)
