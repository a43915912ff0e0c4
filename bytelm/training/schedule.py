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


def lr_factor(schedule: ConstantSettings, *, step: int, done: float) -> float:
    """What every learning rate is multiplied by at step `step` with `done` of training done.

    Warm-up is linear, over `warmup` steps (an integer) or that share of training (a fraction).
    wsd: constant, then over the last `decay` share 1 - sqrt(x) (Hägele et al. 2024,
    arXiv:2405.18392). cosine: half a period after the warm-up. Both end at `final`.

    >>> lr_factor(WSDSettings(kind="wsd", warmup=0, decay=0.5, final=0.0), step=0, done=0.625)
    0.5
    """
    rise = _warmup(schedule, step, done)
    if rise < 1:
        return rise
    match schedule:
        case WSDSettings():
            fallen = math.sqrt(max(0.0, done - (1 - schedule.decay)) / (schedule.decay or 1))
        case CosineSettings():
            start = schedule.warmup if isinstance(schedule.warmup, float) else 0.0
            fallen = (1 - math.cos(math.pi * (done - start) / (1 - start or 1))) / 2
        case _:
            return 1.0
    return 1 - (1 - schedule.final) * fallen


def _warmup(schedule: ConstantSettings, step: int, done: float) -> float:
    """How far the warm-up is, 1 once it is over."""
    if isinstance(schedule.warmup, int):
        return (step + 1) / (schedule.warmup + 1)
    return done / schedule.warmup if schedule.warmup else 1.0
