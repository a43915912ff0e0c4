"""Alarms: when a model's symptoms are worth a message.

What the statistics of a model mean is its own knowledge (`ByteModel.symptoms`). Bad states pass by
themselves early in training, so an alarm needs a symptom to last for `PATIENCE` steps; the same
alarm then stays quiet for `QUIET` steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from bytelm.arch.base import Symptom

PATIENCE = 200  # steps a symptom must last
QUIET = 2000  # steps between two alarms of a kind


@dataclass
class Alarms:
    """Watches the symptoms of successive steps.

    since        symptom -> first step at which it was seen, without a break since
    last_warned  symptom -> step of its last message
    """

    since: dict[str, int] = field(default_factory=dict)
    last_warned: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, stored: Mapping[str, dict[str, int]]) -> Self:
        """The alarms that a checkpoint stored."""
        warned = stored.get("last_warned", stored.get("rung", {}))  # "rung" before version 0.2
        return cls(dict(stored.get("since", {})), dict(warned))

    def to_dict(self) -> dict[str, dict[str, int]]:
        """What a checkpoint stores."""
        return asdict(self)

    def check(self, step: int, symptoms: Sequence[Symptom]) -> list[str]:
        """The messages due at `step`, at which the model shows `symptoms`."""
        self.since = {s.name: self.since.get(s.name, step) for s in symptoms}
        due = [
            s
            for s in symptoms
            if step - self.since[s.name] > PATIENCE
            and step - self.last_warned.get(s.name, step - QUIET) >= QUIET
        ]
        self.last_warned |= {s.name: step for s in due}
        return [f"{s.finding}, for {PATIENCE} steps. {s.advice}" for s in due]
