"""Schedules: known values, continuity, and no step at a learning rate of zero."""

import math

import pytest

from bytelm.recipe_sections import ConstantSettings, CosineSettings, TrainSettings, WSDSettings
from bytelm.training.schedule import lr_factor, progress


def test_progress_is_the_larger_of_steps_and_time():
    train = TrainSettings(steps=100, max_minutes=2.0)
    assert progress(49, train, seconds=0) == 0.495
    assert progress(10, train, seconds=90) == 0.75
    assert progress(10, TrainSettings(max_minutes=2.0), seconds=600) == 1.0


def test_wsd_rises_stays_and_falls_by_one_minus_sqrt():
    wsd = WSDSettings(kind="wsd", warmup=0.1, decay=0.2, final=0.1)
    assert lr_factor(wsd, step=5, done=0.05) == 0.5
    assert lr_factor(wsd, step=50, done=0.5) == lr_factor(wsd, step=79, done=0.8) == 1.0
    for x in (0.25, 0.5, 1.0):
        expected = 1 - 0.9 * math.sqrt(x)
        assert lr_factor(wsd, step=90, done=0.8 + 0.2 * x) == pytest.approx(expected)


def test_cosine_is_half_way_down_in_the_middle_after_warmup():
    cosine = CosineSettings(kind="cosine", warmup=0.2, final=0.0)
    assert lr_factor(cosine, step=60, done=0.6) == pytest.approx(0.5)
    assert lr_factor(cosine, step=100, done=1.0) == pytest.approx(0.0)


def test_warmup_in_steps_counts_steps():
    constant = ConstantSettings(kind="constant", warmup=3)
    assert [lr_factor(constant, step=s, done=0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(
    "schedule",
    [
        WSDSettings(kind="wsd", decay=0.0),
        WSDSettings(kind="wsd", decay=1.0, warmup=0),
        CosineSettings(kind="cosine", warmup=1.0),
        ConstantSettings(kind="constant", warmup=0),
        WSDSettings(kind="wsd"),
    ],
)
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_every_step_has_a_positive_rate_of_at_most_one(schedule, steps):
    train = TrainSettings(steps=steps)
    for step in range(steps):
        assert 0 < lr_factor(schedule, step=step, done=progress(step, train)) <= 1
