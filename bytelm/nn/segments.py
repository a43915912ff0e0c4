"""`Segments`: which positions of a padded batch are real, and which may see each other.

Every mixer needs the same three facts about its rows: how many positions are valid, where a new
document starts, and each position's index within its document. They are derived here once a
sequence and shared by all layers of a stack. Padding is on the right only; causality then keeps it
from touching valid positions, so mixers need no padding mask.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Rows of L positions.

    length        L
    lengths       (B,) valid positions a row, or None = all of them
    document_ids  (B, L) non-decreasing along a row; positions with different ids never see each
                  other; None = one document a row
    """

    length: int
    lengths: Tensor | None = None
    document_ids: Tensor | None = None

    @cached_property
    def valid(self) -> Tensor | None:
        """(B, L) bool, or None when every position is valid."""
        if self.lengths is None:
            return None
        return torch.arange(self.length, device=self.lengths.device) < self.lengths[:, None]

    @cached_property
    def starts(self) -> Tensor | None:
        """(B, L) bool, true at the first position of each document; None = only position 0."""
        if self.document_ids is None:
            return None
        starts = torch.ones_like(self.document_ids, dtype=torch.bool)
        starts[:, 1:] = self.document_ids[:, 1:] != self.document_ids[:, :-1]
        return starts

    def positions(self, device: torch.device) -> Tensor:
        """(L,) or (B, L) index of each position within its own document."""
        index = torch.arange(self.length, device=device)
        if self.starts is None:
            return index
        return index - torch.where(self.starts, index, 0).cummax(dim=1).values

    def attention_mask(self, window: int, device: torch.device) -> Tensor | None:
        """Bool mask for attention, (L, L) or (B, 1, L, L); None = plain causal. Made once a window.

        window: number of earlier positions in view besides the position itself; -1 = all.
        """
        if self.document_ids is None and not 0 <= window < self.length - 1:
            return None
        if window not in self._masks:
            self._masks[window] = self._make_mask(window, device)
        return self._masks[window]

    @cached_property
    def _masks(self) -> dict[int, Tensor]:
        return {}

    def _make_mask(self, window: int, device: torch.device) -> Tensor:
        index = torch.arange(self.length, device=device)
        distance = index[:, None] - index[None, :]
        mask = distance >= 0
        if window >= 0:
            mask &= distance <= window
        if self.document_ids is None:
            return mask
        same = self.document_ids[:, :, None] == self.document_ids[:, None, :]
        return (mask & same)[:, None]
