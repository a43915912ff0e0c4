"""`Batch`: the tensors one training or scoring step works on, whatever made them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

IGNORE = -100  # a target that carries no loss


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of byte rows. Shapes: B rows, L positions. All integer tensors are int64.

    ids           (B, L)  input ids; rows are padded on the right with any id
    targets       (B, L)  id to be predicted at each position, IGNORE (-100) = no loss; or None
    lengths       (B,)    valid positions of each row; None = all L
    document_ids  (B, L)  positions with different ids must not see each other (packed documents);
                          non-decreasing along a row; None = one document a row
    boundaries    (B, L)  bool, chunk starts for models with boundary="given"; or None
    labels        (B,)    class of each row, for classification; or None
    raw_bytes             how many raw data bytes are predicted by `targets` (for bits per byte)

    >>> Batch(ids=torch.zeros(2, 8, dtype=torch.long)).size
    16
    """

    ids: Tensor
    targets: Tensor | None = None
    lengths: Tensor | None = None
    document_ids: Tensor | None = None
    boundaries: Tensor | None = None
    labels: Tensor | None = None
    raw_bytes: int = 0

    @property
    def size(self) -> int:
        """Positions in the batch, padding included."""
        return self.ids.numel()

    def mask(self) -> Tensor | None:
        """(B, L) bool, true at valid positions; None when every position is valid."""
        if self.lengths is None:
            return None
        L = self.ids.shape[1]
        return torch.arange(L, device=self.ids.device) < self.lengths[:, None]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)
