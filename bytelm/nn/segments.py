"""`Segments`: which positions of a padded batch are real, and which may see each other.

Every mixer needs the same three facts about its rows: how many positions are valid, where a new
document starts, and each position's index within its document. They are derived here once per
sequence and shared by all layers of a stack. Padding is on the right only; causality then keeps it
from touching valid positions, so causal mixers need no padding mask.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Rows of L positions.

    length        L
    lengths       (B,) valid positions per row, or None = all of them
    document_ids  (B, L) non-decreasing along a row; positions with different ids never see each
                  other; None = one document per row
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

    def attention_mask(
        self, window: int, device: torch.device, *, causal: bool = True
    ) -> Tensor | None:
        """Bool mask of attention that broadcasts against (B, H, L, L), made once per window; None =
        nothing is hidden, apart from what comes later if `causal`.

        window: number of earlier positions in view besides the position itself (and of later ones,
        if not causal); -1 = all. Padding is hidden where causality does not hide it.
        """
        narrow = 0 <= window < self.length - 1
        if self.document_ids is None and not narrow and (causal or self.lengths is None):
            return None
        if ("whole", window, causal) not in self._masks:
            self._masks["whole", window, causal] = self._make_mask(window, device, causal)
        return self._masks["whole", window, causal]

    def block_mask(self, window: int, device: torch.device, *, causal: bool) -> Tensor:
        """Bool mask (1 or B, blocks, window, keys) of the same attention in blocks of `window`
        positions, the last of them filled up: each block sees the one before it, itself and, if not
        causal, the one behind, so keys = 2 or 3 windows. Made once per window.
        """
        if ("blocks", window, causal) not in self._masks:
            self._masks["blocks", window, causal] = self._make_block_mask(window, device, causal)
        return self._masks["blocks", window, causal]

    def _make_block_mask(self, window: int, device: torch.device, causal: bool) -> Tensor:
        blocks = -(-self.length // window)
        row = torch.arange(window, device=device)[:, None]
        column = torch.arange((2 if causal else 3) * window, device=device) - window
        distance = row - column
        near = (distance >= 0 if causal else distance >= -window) & (distance <= window)
        begins = window * torch.arange(blocks, device=device)[:, None, None]
        key = begins + column  # (blocks, 1, keys)
        mask = (near & (key >= 0) & (key < self.length))[None]
        if self.document_ids is not None:
            ids = self.document_ids[:, key.clamp(0, self.length - 1)]
            own = self.document_ids[:, (begins + row).clamp(max=self.length - 1)]
            mask = mask & (own == ids)
        if not causal and self.valid is not None:
            mask = mask & self.valid[:, key.clamp(0, self.length - 1)]
        return mask | (distance == 0)  # a row of the mask without a key would be NaN

    @cached_property
    def _masks(self) -> dict[tuple[str, int, bool], Tensor]:
        return {}

    def _make_mask(self, window: int, device: torch.device, causal: bool) -> Tensor:
        index = torch.arange(self.length, device=device)
        distance = index[:, None] - index[None, :]
        mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
        if window >= 0:
            mask &= distance.abs() <= window
        if self.document_ids is not None:
            same = self.document_ids[:, :, None] == self.document_ids[:, None, :]
            mask = (mask & same)[:, None]
        if causal or self.valid is None:
            return mask
        # padding sees itself: nobody reads it, but a row of the mask without a key would be NaN
        itself = torch.eye(self.length, dtype=torch.bool, device=device)
        return mask & self.valid[:, None, None] | itself


def last_valid(x: Tensor, counts: Tensor | None) -> Tensor:
    """x[b, counts[b] - 1]: what x (B, L, ...) holds at each row's last valid position, (B, ...).

    counts (B,) >= 1; None = all L positions are valid.
    """
    if counts is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), counts - 1]
