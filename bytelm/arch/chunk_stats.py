"""What every model with chunks reports about a stage of them."""

import torch
from torch import Tensor

from bytelm.device import has_float64
from bytelm.nn.chunking import ChunkPlan
from bytelm.nn.ranks import sum_over_ranks


def stage_stats(
    s: int, plan: ChunkPlan, valid: Tensor | None, *, p: Tensor | None = None
) -> dict[str, Tensor | float]:
    """Of stage s, over all ranks: F, the share of valid positions (valid (B, L) bool; None = all)
    that start a chunk; the mean chunk length; and where starts are learned with probabilities
    p (B, L), the share of those that are undecided."""
    starts = plan.starts
    positions = torch.tensor(starts.numel()) if valid is None else valid.sum()
    counts = [starts.sum(), positions.to(starts.device)]
    if p is not None:
        undecided = (p.detach() - 0.5).abs() < 0.05
        counts.append((undecided if valid is None else undecided & valid).sum())
    exact = torch.float64 if has_float64(starts.device) else torch.float32
    found, total, *undecided_total = sum_over_ranks(torch.stack(counts).to(exact))
    stats: dict[str, Tensor | float] = {
        f"stage{s}/F": found / total,
        f"stage{s}/chunk_bytes": total / found,
    }
    if undecided_total:
        stats[f"stage{s}/near_half"] = undecided_total[0] / total
    return stats
