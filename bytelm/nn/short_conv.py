"""A layer that is a short causal convolution and nothing else.

Each channel mixes its K latest values, then SiLU. Attention has to learn from scratch to look at
the byte before; a convolution looks there from the first step on, which is what the first hundred
steps of a byte model are about (Mamba-2 has one in front of its state; as a layer of its own beside
attention it is Allen-Zhu 2025's "Canon layer"). It costs next to nothing.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from bytelm.nn.conv import causal_conv_silu, latest_inputs
from bytelm.nn.segments import Segments
from bytelm.nn.state import State


@dataclass(frozen=True)
class ConvState(State):
    """tail (B, K-1, D): the last inputs of the convolution."""

    tail: Tensor


class ShortConv(nn.Module):
    """(B, L, D) -> (B, L, D): silu of a depthwise causal convolution of width K."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.conv1d = nn.Conv1d(dim, dim, width, groups=dim)

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        return self._convolve(x_BLD, None, segments.document_ids)

    def init_state(self, batch_size: int) -> ConvState:
        """The state before the first position of `batch_size` rows: zeros."""
        weight = self.conv1d.weight
        return ConvState(weight.new_zeros(batch_size, weight.shape[2] - 1, weight.shape[0]))

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: ConvState
    ) -> tuple[Tensor, ConvState]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), state)."""
        tail = latest_inputs(state.tail, x_BLD, counts)
        return self._convolve(x_BLD, state.tail, None), ConvState(tail)

    def _convolve(self, x: Tensor, tail: Tensor | None, documents: Tensor | None) -> Tensor:
        bias = self.conv1d.bias
        assert bias is not None
        weight = self.conv1d.weight.squeeze(1)
        return causal_conv_silu(x, weight, bias, tail=tail, document_ids=documents)
