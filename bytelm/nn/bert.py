"""The encoder of BERT (Devlin et al. 2019, arXiv:1810.04805), for models whose papers keep it.

Post-norm blocks with biases, exact GELU, learned absolute positions and one normalisation of the
summed inputs. Shapes and sums are those of `transformers.BertModel` given `inputs_embeds`, without
dropout and with its one token type folded into the positions, and the tests hold the two against
each other. Everything else here uses `nn.stack`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.errors import BytelmError
from bytelm.nn.linear import Linear
from bytelm.nn.segments import Segments

EPS = 1e-12


class BertBlock(nn.Module):
    """(B, L, D) -> (B, L, D): norm1(x + attention(x)), then norm2(x + mlp(x))."""

    def __init__(self, dim: int, *, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.Wqkv = Linear(dim, 3 * dim)
        self.out_proj = Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x_BLD: Tensor, mask: Tensor | None) -> Tensor:
        """mask: which keys each query sees, as `Segments.attention_mask` gives it."""
        q, k, v = self.Wqkv(x_BLD).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x_BLD + self.out_proj(seen.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))


class BertEncoder(nn.Module):
    """(B, L, D) -> (B, L, D): learned positions, a norm, blocks.

    positions  how many a document may have; `BytelmError` for more
    """

    def __init__(self, dim: int, *, layers: int, heads: int, hidden: int, positions: int):
        super().__init__()
        self.positions = nn.Embedding(positions, dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.blocks = nn.ModuleList(
            BertBlock(dim, heads=heads, hidden=hidden) for _ in range(layers)
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Matrices N(0, 0.02), biases 0, as BERT's."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, x_BLD: Tensor, segments: Segments) -> Tensor:
        places, room = segments.positions(x_BLD.device), self.positions.num_embeddings
        used = places.expand(x_BLD.shape[:2])
        if segments.valid is not None:
            used = used[segments.valid]
        if used.numel() and int(used.max()) >= room:
            raise BytelmError(
                f"a text has {int(used.max()) + 1} words and the model has positions for {room}: "
                "raise model.positions, or lower train.context_bytes"
            )
        x = self.norm(x_BLD + self.positions(places.clamp(max=room - 1)))
        mask = segments.attention_mask(-1, x.device, causal=False)
        for block in self.blocks:
            x = block(x, mask)
        return x


def bert_flops(dim: int, *, layers: int, hidden: int, context: float) -> float:
    """Forward floating-point operations per position at that context length in positions."""
    return layers * (8.0 * dim * dim + 4.0 * dim * context + 4.0 * dim * hidden)
