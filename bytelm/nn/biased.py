"""Attention whose scores carry an additive bias, as in T5: self-attention and cross-attention.

Scores are not scaled by the root of the head width, heads may be wider or narrower than the model
over their number, and positions enter through the bias alone. The bias also masks: -inf hides a
key, and a large negative number all but deletes it (MrT5). `softmax1` is exp(s) / (1 + sum exp(s)):
a zero key with a zero value is put beside the others, so that the fused kernels serve it too.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.nn.cache import KVCache
from bytelm.nn.linear import Linear
from bytelm.nn.memory import Memory


@dataclass(frozen=True, kw_only=True)
class BiasedOptions:
    """heads; width of each head; softmax1: whether a query may look at nothing."""

    heads: int
    head_dim: int
    softmax1: bool = False

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, softmax1: bool) -> Tensor:
    """(B, H, L, K) what queries find; q (B, H, L, K), k and v (B, H, S, K), bias broadcasts to
    (B, H, L, S). Every query needs a key that is not hidden, unless softmax1."""
    if softmax1:
        k, v, bias = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)), F.pad(bias, (0, 1))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)


def mean_square_score(q: Tensor, k: Tensor, valid_BS: Tensor) -> Tensor:
    """() mean of the squared scores of all queries against the valid keys, without the bias: from
    the Gram matrices of queries and keys, so no score is computed."""
    k = k * valid_BS[:, None, :, None]
    gram_q, gram_k = q.transpose(2, 3) @ q, k.transpose(2, 3) @ k
    pairs = q.shape[1] * q.shape[2] * valid_BS.sum()
    return (gram_q * gram_k).sum() / pairs


class BiasedSelfAttention(nn.Module):
    """(B, L, D) -> (B, L, D). `Wqkv` has the layout (3, heads, head_dim), no biases."""

    def __init__(self, dim: int, options: BiasedOptions):
        super().__init__()
        self.options = options
        self.Wqkv = Linear(dim, 3 * options.inner, bias=False)
        self.out_proj = Linear(options.inner, dim, bias=False)

    def forward(self, x_BLD: Tensor, bias: Tensor) -> Tensor:
        """bias broadcasts to (B, H, L, L)."""
        q, k, v = self.heads(x_BLD)
        return self._out(attend(q, k, v, bias, softmax1=self.options.softmax1))

    def heads(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, L, K)."""
        qkv = self.Wqkv(x_BLD).unflatten(-1, (3, self.options.heads, self.options.head_dim))
        q, k, v = qkv.transpose(1, 3).unbind(2)
        return q, k, v

    def init_state(self, batch_size: int) -> KVCache:
        """An empty cache."""
        weight = self.Wqkv.weight
        return KVCache.empty(
            batch_size,
            self.options.heads,
            self.options.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, cache: KVCache, bias: Tensor
    ) -> tuple[Tensor, KVCache]:
        """Feed counts[b] (None = L) more positions of each row; bias (B, H, L, S) over the S
        positions that the longest row then has. -> (outputs (B, L, D), cache)."""
        q, k, v = self.heads(x_BLD)
        cache = cache.append(k, v, counts)
        keys, values = (past.to(q.dtype) for past in cache.read())
        return self._out(attend(q, keys, values, bias, softmax1=self.options.softmax1)), cache

    def _out(self, found: Tensor) -> Tensor:
        return self.out_proj(found.transpose(1, 2).flatten(2))


class BiasedCrossAttention(nn.Module):
    """(B, L, D) reads a memory of M positions per row -> (B, L, D). `Wkv` has the layout
    (2, heads, head_dim), no biases."""

    def __init__(self, dim: int, options: BiasedOptions):
        super().__init__()
        self.options = options
        self.Wq = Linear(dim, options.inner, bias=False)
        self.Wkv = Linear(dim, 2 * options.inner, bias=False)
        self.out_proj = Linear(options.inner, dim, bias=False)

    def read(self, memory: Memory) -> Memory:
        """Keys and values (B, M, 2 H K) of an encoder's output (B, M, D)."""
        return Memory(self.Wkv(memory.values), memory.lengths)

    def forward(self, x_BLD: Tensor, read: Memory, bias: Tensor) -> Tensor:
        """What each position finds; bias broadcasts to (B, H, L, M)."""
        q, k, v = self.heads(x_BLD, read)
        found = attend(q, k, v, bias, softmax1=self.options.softmax1)
        return self.out_proj(found.transpose(1, 2).flatten(2))

    def heads(self, x_BLD: Tensor, read: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, L, K), keys and values (B, H, M, K)."""
        shape = (self.options.heads, self.options.head_dim)
        q = self.Wq(x_BLD).unflatten(-1, shape).transpose(1, 2)
        k, v = read.values.unflatten(-1, (2, *shape)).transpose(1, 3).to(q.dtype).unbind(2)
        return q, k, v
