"""What an H-Net reports about its chunking stages, and what in it is a sign of trouble."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bytelm.arch.base import Symptom
from bytelm.arch.hnet.levels import StageTrace
from bytelm.device import has_float64
from bytelm.nn.ranks import sum_over_ranks


def stage_stats(s: int, trace: StageTrace) -> dict[str, Tensor | float]:
    """Telemetry of one stage over all ranks: F, mean chunk length, and the share of undecided
    probabilities."""
    starts, valid = trace.plan.starts, trace.valid
    positions = torch.tensor(starts.numel()) if valid is None else valid.sum()
    counts = [starts.sum(), positions.to(starts.device)]
    if trace.p is not None:
        undecided = (trace.p.detach() - 0.5).abs() < 0.05
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


def stage_symptoms(s: int, stats: Mapping[str, float]) -> list[Symptom]:
    """Two traps that the loss alone does not show: a learned stage with almost no chunks (the
    inner network starves) and one that cuts at every position (a slow flat model)."""
    share, target = stats.get(f"stage{s}/F"), stats.get(f"stage{s}/target", 0.0)
    found: list[Symptom] = []
    if share is None or target <= 1:
        return found
    if share < 1 / (4 * target):
        found.append(_starved(s, share, target))
    if share > 0.9:
        found.append(_flat(s, share, target))
    return found


def _starved(s: int, share: float, target: float) -> Symptom:
    return Symptom(
        name=f"stage{s}/starved",
        finding=f"stage{s} hardly cuts any more: a chunk is {1 / max(share, 1e-9):.0f} positions "
        f"long (target {target:g})",
        advice="The inner network sees almost nothing. Raise the weight of the ratio loss, lower "
        "the learning rate of that stage, or anneal the target up from a small value",
    )


def _flat(s: int, share: float, target: float) -> Symptom:
    return Symptom(
        name=f"stage{s}/flat",
        finding=f"stage{s} cuts at {share:.0%} of all positions (target: one in {target:g})",
        advice="So nothing is compressed and every step is slow. Raise the weight of the ratio "
        "loss, give the outer layers more width, or check that the data is not incompressible "
        "(encrypted, compressed)",
    )
