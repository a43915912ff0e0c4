"""Alarms on a model's own statistics: what goes wrong with learned chunking, and what to do then.

A hierarchical stage reports `stageS/F` (share of positions that start a chunk) and, where it has
one, `stageS/target` (bytes per chunk it is pulled to). Two states are traps that the loss alone
does not show: almost no chunks (the inner network starves) and a chunk at every position (the inner
network is a slow flat model). Both pass by themselves early in training, so an alarm needs the
state to last for `PATIENCE` steps; the same alarm then stays quiet for `QUIET` steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PATIENCE = 200  # steps a state must last
QUIET = 2000  # steps between two alarms of a kind


@dataclass
class Alarms:
    """Watches the statistics of successive steps. `since` and `rung` go into checkpoints."""

    since: dict[str, int] = field(default_factory=dict)  # alarm -> first step of the bad state
    rung: dict[str, int] = field(default_factory=dict)  # alarm -> step of its last message

    def check(self, step: int, stats: Mapping[str, float]) -> list[str]:
        """The messages due at `step`."""
        bad = dict(_symptoms(stats))
        self.since = {name: self.since.get(name, step) for name in bad}
        due = [
            name
            for name in bad
            if step - self.since[name] > PATIENCE
            and step - self.rung.get(name, step - QUIET) >= QUIET
        ]
        self.rung |= dict.fromkeys(due, step)
        return [bad[name] for name in due]


def _symptoms(stats: Mapping[str, float]) -> list[tuple[str, str]]:
    found = []
    for name, share in stats.items():
        stage, slash, last = name.rpartition("/")
        if not slash or last != "F":
            continue
        target = stats.get(f"{stage}/target", 0.0)
        if target > 1 and share < 1 / (4 * target):
            found.append((f"{stage}/starved", _starved(stage, share, target)))
        if target > 1 and share > 0.9:
            found.append((f"{stage}/flat", _flat(stage, share, target)))
    return found


def _starved(stage: str, share: float, target: float) -> str:
    return (
        f"{stage} hardly cuts any more: a chunk is {1 / max(share, 1e-9):.0f} positions long "
        f"(target {target:g}) and has been for {PATIENCE} steps, so the inner network sees almost "
        "nothing. Raise the weight of the ratio loss, lower the learning rate of that stage, or "
        "anneal the target up from a small value"
    )


def _flat(stage: str, share: float, target: float) -> str:
    return (
        f"{stage} cuts at {share:.0%} of all positions (target: one in {target:g}) and has for "
        f"{PATIENCE} steps, so nothing is compressed and every step is slow. Raise the weight of "
        "the ratio loss, give the outer layers more width, or check that the data is not "
        "incompressible (encrypted, compressed)"
    )
