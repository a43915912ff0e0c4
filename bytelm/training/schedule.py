"""The learning-rate factor as a pure function of how much of training is done.

`progress` is the larger of steps done and minutes used, each as a share of its limit, so a recipe
may stop by either; with only `train.steps` it depends on nothing but the step and is exactly
reproducible. A step is placed at its middle, so that neither the first nor the last one has a
learning rate of zero.
"""

import math

from bytelm.recipe_sections import ConstantSettings, CosineSettings, TrainSettings, WSDSettings


def progress(step: int, train: TrainSettings, *, seconds: float = 0.0) -> float:
    """How much of training is done in the middle of step `step` (0-based), 0 to 1.

    seconds: used so far on the recipe's clock, over all resumed parts of the run.

    >>> progress(0, TrainSettings(steps=10)), progress(9, TrainSettings(steps=10))
    (0.05, 0.95)
    """
    by_steps = (step + 0.5) / train.steps if train.steps else 0.0
    by_time = seconds / (60 * train.max_minutes) if train.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def governing_limit(step: int, train: TrainSettings, *, seconds: float = 0.0) -> str:
    """The limit that `progress` follows, as the recipe writes it.

    >>> governing_limit(5, TrainSettings(steps=10, max_minutes=2.0), seconds=90)
    'train.max_minutes = 2'
    """
    by_time = train.max_minutes is not None and seconds >= 60 * train.max_minutes * progress(
        step, train, seconds=seconds
    )
    if by_time or train.steps is None:
        return f"train.max_minutes = {train.max_minutes:g}"
    return f"train.steps = {train.steps}"


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
