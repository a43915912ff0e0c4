"""Relative position bias of T5: a learned number per head and bucket of distances, added to scores.

Near distances have a bucket each, farther ones share buckets that widen logarithmically up to
`max_distance`, beyond which everything is one (Raffel et al. 2020, section 2.1). One table serves
all layers of a stack. The bias is a function of two lists of positions, so a sequence from which
positions were deleted keeps the distances of the original one.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def relative_buckets(
    distances: Tensor, *, buckets: int, max_distance: int, both_directions: bool
) -> Tensor:
    """The bucket of each distance (key position - query position), any shape, int64.

    Half of the buckets are for keys behind the query if `both_directions`; otherwise such keys
    share the bucket of distance 0. The logarithm is taken in float32, as in the released models.

    >>> relative_buckets(torch.tensor([-200, -3, 0, 3]), buckets=32, max_distance=128,
    ...                  both_directions=True).tolist()
    [15, 3, 0, 19]
    """
    first = torch.zeros_like(distances)
    if both_directions:
        buckets //= 2
        first = (distances > 0) * buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    exact = buckets // 2
    ratio = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = exact + (ratio * (buckets - exact)).long()
    return first + torch.where(distances < exact, distances, far.clamp(max=buckets - 1))


class RelativeBias(nn.Module):
    """`weight` (buckets, heads); see the module."""

    def __init__(self, heads: int, *, buckets: int, max_distance: int, both_directions: bool):
        super().__init__()
        self.max_distance, self.both_directions = max_distance, both_directions
        self.weight = nn.Parameter(torch.zeros(buckets, heads))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Bias (B, H, L, S) of queries at positions (B, L) and keys at positions (B, S)."""
        distances = keys[:, None, :] - queries[:, :, None]
        farthest = max(queries.numel() and int(queries.max()), keys.numel() and int(keys.max()))
        table = relative_buckets(
            torch.arange(-farthest, farthest + 1, device=keys.device),
            buckets=len(self.weight),
            max_distance=self.max_distance,
            both_directions=self.both_directions,
        )
        bias_BLSH = F.embedding(table[distances + farthest], self.weight)
        return bias_BLSH.permute(0, 3, 1, 2).contiguous()
