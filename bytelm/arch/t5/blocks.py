"""The blocks of T5: pre-norm on a residual stream kept in float32 or better."""

import torch
from torch import Tensor, nn

from bytelm.arch.t5.config import T5Config
from bytelm.nn.biased import BiasedCrossAttention, BiasedSelfAttention
from bytelm.nn.cache import KVCache
from bytelm.nn.memory import Memory
from bytelm.nn.mlp import GEGLU
from bytelm.nn.norms import RMSNorm

EPS = 1e-6


class EncoderBlock(nn.Module):
    """x + self(norm1 x), then + mlp(norm2 x)."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.norm1 = RMSNorm(config.d_model, eps=EPS)
        self.attention = BiasedSelfAttention(config.d_model, config.attention)
        self.norm2 = RMSNorm(config.d_model, eps=EPS)
        self.mlp = GEGLU(config.d_model, config.feed_forward)

    def forward(self, x_BLD: Tensor, bias: Tensor) -> Tensor:
        x = x_BLD + self.attention(self.norm1(x_BLD), bias)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """x + self(norm1 x), then + cross(norm2 x), then + mlp(norm3 x)."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.norm1 = RMSNorm(config.d_model, eps=EPS)
        self.attention = BiasedSelfAttention(config.d_model, config.attention)
        self.norm2 = RMSNorm(config.d_model, eps=EPS)
        self.cross = BiasedCrossAttention(config.d_model, config.attention)
        self.norm3 = RMSNorm(config.d_model, eps=EPS)
        self.mlp = GEGLU(config.d_model, config.feed_forward)

    def forward(self, x_BLD: Tensor, bias: Tensor, read: Memory, read_bias: Tensor) -> Tensor:
        x = x_BLD + self.attention(self.norm1(x_BLD), bias)
        return self._after(x, read, read_bias)

    def extend(
        self,
        x_BLD: Tensor,
        counts: Tensor | None,
        past: KVCache,
        bias: Tensor,
        read: Memory,
        read_bias: Tensor,
    ) -> tuple[Tensor, KVCache]:
        """Feed counts[b] (None = L) more positions of each row; -> (outputs (B, L, D), cache)."""
        mixed, past = self.attention.extend(self.norm1(x_BLD), counts, past, bias)
        return self._after(x_BLD + mixed, read, read_bias), past

    def _after(self, x: Tensor, read: Memory, read_bias: Tensor) -> Tensor:
        x = x + self.cross(self.norm2(x), read, read_bias)
        return x + self.mlp(self.norm3(x))


@torch.no_grad()
def reset_blocks(module: nn.Module) -> None:
    """Linears of blocks as T5 initialises them: N(0, 1/fan_in), queries 1/(D head_dim), which
    takes the place of scaled scores (Raffel et al. 2020; mesh-tensorflow)."""
    for part in module.modules():
        if isinstance(part, BiasedSelfAttention | BiasedCrossAttention | GEGLU):
            for linear in part.children():
                assert isinstance(linear, nn.Linear)
                linear.weight.normal_(0, linear.in_features**-0.5)
        if isinstance(part, BiasedSelfAttention):
            part.Wqkv.weight[: part.options.inner] *= part.options.head_dim**-0.5
        if isinstance(part, BiasedCrossAttention):
            part.Wq.weight *= part.options.head_dim**-0.5
