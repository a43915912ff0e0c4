"""No schedule jumps: a property over every kind, both kinds of warm-up and any length."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bytelm.recipe_sections import (
    KINDS,
    ConstantSettings,
    CosineSettings,
    TrainSettings,
    WSDSettings,
)
from bytelm.training.schedule import Done, lr_factor, progress

shares = st.floats(0, 1)


@st.composite
def schedules(draw, steps: int) -> ConstantSettings:
    warmup = draw(st.integers(0, steps) | shares)
    kind = draw(st.sampled_from([ConstantSettings, CosineSettings, WSDSettings]))
    settings = {name: draw(shares) for name in ("final", "decay") if name in kind.model_fields}
    name = {ConstantSettings: "constant", CosineSettings: "cosine", WSDSettings: "wsd"}[kind]
    return kind(kind=name, warmup=warmup, **settings)


def steepest(schedule, steps: int) -> float:
    """The largest change from one step to the next that a schedule without a jump can make: a line
    of the warm-up, the steepest slope of a cosine, the root's first step."""
    warmup = schedule.warmup if isinstance(schedule.warmup, int) else schedule.warmup * steps
    rise = 1 / max(warmup, 1)
    if isinstance(schedule, ConstantSettings) and schedule.kind == "constant":
        return rise
    left = max(steps - warmup, 1.0)
    if schedule.kind == "cosine":
        return max(rise, math.pi / 2 / left)
    fall = min(schedule.decay * steps, left) if schedule.decay else left
    return max(rise, math.sqrt(min(1.0, 1.0 / max(fall, 1.0))))


def test_the_property_covers_every_kind():
    assert {kind.__name__ for kind in KINDS["schedule"]} == {
        "ConstantSettings", "CosineSettings", "WSDSettings"
    }  # fmt: skip


@given(st.data(), st.integers(20, 400))
def test_the_rate_never_jumps_from_one_step_to_the_next(data, steps):
    schedule, train = data.draw(schedules(steps)), TrainSettings(steps=steps)
    # a warm-up or a fall of less than a few steps is a jump that was asked for
    assume(not 0 < getattr(schedule, "decay", 0) < 4 / steps)
    rates = [lr_factor(schedule, step=s, done=progress(Done(steps=s), train)) for s in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    limit = steepest(schedule, steps) * 1.001 + 1e-9
    for before, after in zip(rates, rates[1:], strict=False):
        assert abs(after - before) <= limit


@given(st.data(), st.integers(20, 400), st.floats(0.3, 3))
def test_it_never_jumps_when_the_clock_governs_either(data, steps, pace):
    """Steps of uneven length: the share of training is a curve of the step, not a line."""
    schedule = data.draw(schedules(steps))
    assume(not 0 < getattr(schedule, "decay", 0) < 4 / steps)
    assume(schedule.warmup < (steps if isinstance(schedule.warmup, int) else 1))
    after = lr_factor(schedule, step=steps, done=1.0)
    shares = [((s + 0.5) / steps) ** pace for s in range(steps)]
    rates = [lr_factor(schedule, step=s, done=d) for s, d in enumerate(shares)]
    assert all(0 <= rate <= 1 for rate in [*rates, after])
    if isinstance(schedule.warmup, int) and schedule.kind != "wsd" and 0 < schedule.warmup < steps:
        risen = rates[schedule.warmup]
        one_step = shares[schedule.warmup] - shares[schedule.warmup - 1]
        assert risen >= 1 - math.pi * one_step / max(1 - shares[schedule.warmup], one_step)


def test_cosine_after_500_steps_of_warmup_begins_at_its_peak():
    """It fell from 0.998 to 0.549 in one step."""
    cosine = CosineSettings(kind="cosine", warmup=500, final=0.1)
    train = TrainSettings(steps=1000)
    rates = [lr_factor(cosine, step=s, done=progress(Done(steps=s), train)) for s in range(1000)]
    assert rates[499] == pytest.approx(500 / 501) and rates[500] == pytest.approx(1, abs=1e-5)
    assert rates[750] == pytest.approx(0.55, abs=2e-3) and rates[999] == pytest.approx(
        0.1, abs=1e-5
    )


def test_wsd_whose_warmup_reaches_into_its_decay_falls_from_the_peak():
    wsd = WSDSettings(kind="wsd", warmup=0.9, decay=0.2, final=0.0)
    assert lr_factor(wsd, step=90, done=0.9) == 1.0
    assert lr_factor(wsd, step=90, done=0.925) == pytest.approx(0.5)
    assert lr_factor(wsd, step=99, done=1.0) == pytest.approx(0.0)
