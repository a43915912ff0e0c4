"""What in the statistics of an H-Net's chunking stages is a sign of trouble."""

from collections.abc import Mapping

from bytelm.arch.base import Symptom


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
