"""The learning-rate factor as a pure function of how much of training is done.

`progress` is the larger of steps and bytes done, each as a share of its limit, so it depends on
nothing but the data and a slower machine trains the same model later; `train.max_minutes` beside
them only stops a run that takes too long, wherever its schedule is. Alone, it is what the schedule
follows. A step is placed at its middle, so that neither the first nor the last one has a learning
rate of zero.
"""

import math
from dataclasses import dataclass

from bytelm.recipe_sections import ConstantSettings, CosineSettings, TrainSettings, WSDSettings


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a run has done so far: steps, bytes predicted or read, and seconds on the recipe's
    clock, over all its resumed parts."""

    steps: int = 0
    bytes: int = 0
    seconds: float = 0.0


def progress(done: Done, train: TrainSettings) -> float:
    """How much of training is done in the middle of the step that follows `done`, 0 to 1.

    >>> train = TrainSettings(steps=10)
    >>> progress(Done(), train), progress(Done(steps=9), train)
    (0.05, 0.95)
    """
    shares = [
        *([(done.steps + 0.5) / train.steps] if train.steps else []),
        *([(done.bytes + train.batch_bytes / 2) / train.bytes] if train.bytes else []),
    ]
    if not shares and train.max_minutes:
        shares = [done.seconds / (60 * train.max_minutes)]
    return min(1.0, max(shares))


def reached_limit(done: Done, train: TrainSettings) -> str | None:
    """The limit that ends the run here, as the recipe writes it; None: the run is not at its end.

    >>> reached_limit(Done(steps=5, seconds=130), TrainSettings(steps=10, max_minutes=2.0))
    'train.max_minutes = 2'
    """
    if train.steps and done.steps >= train.steps:
        return f"train.steps = {train.steps}"
    if train.bytes and done.bytes >= train.bytes:
        return f"train.bytes = {train.bytes}"
    if train.max_minutes and done.seconds >= 60 * train.max_minutes:
        return f"train.max_minutes = {train.max_minutes:g}"
    return None


def lr_factor(schedule: ConstantSettings, *, step: int, done: float) -> float:
    """What every learning rate is multiplied by at step `step` with `done` of training done.

    Warm-up is linear, over `warmup` steps (an integer) or that share of training (a fraction).
    wsd: constant, then over the last `decay` share 1 - sqrt(x) (Hägele et al. 2024,
    arXiv:2405.18392). cosine: half a period. Both begin to fall when the warm-up is over, or later,
    and end at `final`.

    >>> lr_factor(WSDSettings(kind="wsd", warmup=0, decay=0.5, final=0.0), step=0, done=0.625)
    0.5
    """
    rise = _warmup(schedule, step, done)
    if rise < 1:
        return rise
    risen = _warmup_end(schedule, step, done)
    match schedule:
        case WSDSettings() if risen + schedule.decay <= 1:
            fallen = math.sqrt(_share(done, since=1 - schedule.decay, length=schedule.decay))
        case WSDSettings():
            fallen = math.sqrt(_share(done, since=risen, length=1 - risen))
        case CosineSettings():
            share = _share(done, since=risen, length=1 - risen)
            fallen = (1 - math.cos(math.pi * share)) / 2
        case _:
            return 1.0
    return 1 - (1 - schedule.final) * fallen


def _warmup(schedule: ConstantSettings, step: int, done: float) -> float:
    """How far the warm-up is, 1 once it is over."""
    if isinstance(schedule.warmup, int):
        return (step + 1) / (schedule.warmup + 1)
    return done / schedule.warmup if schedule.warmup else 1.0


def _warmup_end(schedule: ConstantSettings, step: int, done: float) -> float:
    """The share of training that was done when the warm-up ended, before step `step`.

    Of a warm-up in steps it is the share that so many steps take at the mean pace so far: exact
    when train.steps governs, and no state to keep when the clock does.
    """
    if isinstance(schedule.warmup, int):
        return done * schedule.warmup / (step + 0.5)
    return schedule.warmup


def _share(done: float, *, since: float, length: float) -> float:
    """How much of the stretch of `length` that began at `since` is done, 0 to 1."""
    return min(1.0, max(0.0, done - since) / length) if length > 0 else 0.0
