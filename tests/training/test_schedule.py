"""Schedules: known values, continuity, and no step at a learning rate of zero."""

import math

import pytest

from bytelm.recipe_sections import ConstantSettings, CosineSettings, TrainSettings, WSDSettings
from bytelm.training.schedule import Done, lr_factor, progress, reached_limit


def test_progress_is_the_larger_of_steps_and_bytes():
    train = TrainSettings(steps=100, bytes=1000, batch_bytes=20, max_minutes=2.0)
    assert progress(Done(steps=49), train) == 0.495
    assert progress(Done(steps=10, bytes=740), train) == 0.75


def test_progress_follows_the_clock_only_where_no_other_limit_is_set():
    assert progress(Done(steps=10, seconds=90), TrainSettings(max_minutes=2.0)) == 0.75
    assert progress(Done(steps=10, seconds=600), TrainSettings(max_minutes=2.0)) == 1.0
    for limits in ({"steps": 100}, {"bytes": 10_000, "batch_bytes": 100}):
        late, early = (
            progress(
                Done(steps=10, bytes=1000, seconds=seconds),
                TrainSettings(**limits, max_minutes=2.0),
            )
            for seconds in (119, 0)
        )
        assert late == early == 0.105


@pytest.mark.parametrize(
    ("limits", "done", "reached"),
    [
        ({"steps": 10}, Done(steps=9, bytes=10**9, seconds=10**9), None),
        ({"steps": 10}, Done(steps=10), "train.steps = 10"),
        ({"bytes": 500}, Done(steps=10**6, bytes=499), None),
        ({"bytes": 500}, Done(bytes=500), "train.bytes = 500"),
        (
            {"bytes": 500, "max_minutes": 0.5},
            Done(bytes=100, seconds=30),
            "train.max_minutes = 0.5",
        ),
        ({"bytes": 500, "max_minutes": 0.5}, Done(bytes=500, seconds=30), "train.bytes = 500"),
        ({"max_minutes": 0.5}, Done(steps=3, bytes=3, seconds=29.9), None),
    ],
)
def test_a_run_ends_at_the_first_limit_and_names_it(limits, done, reached):
    assert reached_limit(done, TrainSettings(**limits)) == reached


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
        assert 0 < lr_factor(schedule, step=step, done=progress(Done(steps=step), train)) <= 1
