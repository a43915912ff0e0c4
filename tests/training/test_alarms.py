"""Alarms ring for lasting trouble, once, and say what to do."""

from bytelm.training.alarms import PATIENCE, QUIET, Alarms
from tests.arch.cases import make

MODEL = make("hnet-1stage")


def check(alarms, step, stats):
    return alarms.check(step, MODEL.symptoms(stats))


def rings(stats_at, steps):
    alarms = Alarms()
    found = {step: check(alarms, step, stats_at(step)) for step in steps}
    return {step: messages for step, messages in found.items() if messages}


def stage(share, target=4.0):
    return {"stage0/F": share, "stage0/target": target}


def test_a_healthy_stage_never_rings():
    assert not rings(lambda step: stage(0.25), range(0, 5000, 10))


def test_starved_and_flat_stages_ring_after_patience_and_then_stay_quiet():
    for share, word in ((0.01, "hardly cuts"), (0.95, "nothing is compressed")):
        rung = rings(lambda step, share=share: stage(share), range(0, PATIENCE + QUIET + 30, 10))
        assert list(rung) == [PATIENCE + 10, PATIENCE + QUIET + 10]
        assert all(word in message and "Raise" in message for [message] in rung.values())


def test_a_passing_state_resets_the_patience():
    assert not rings(lambda s: stage(0.95 if s % 200 else 0.3), range(0, 3000, 10))


def test_stages_without_a_target_and_flat_models_are_left_alone():
    assert not rings(lambda s: {"stage0/F": 1.0, "loss": 3.0}, range(0, 1000, 10))


def test_state_carried_over_a_resume_rings_at_the_same_step():
    alarms = Alarms()
    for step in range(0, 150, 10):
        check(alarms, step, stage(0.99))
    resumed = Alarms.from_dict(alarms.to_dict())
    assert [s for s in range(150, 400, 10) if check(resumed, s, stage(0.99))] == [PATIENCE + 10]


def test_what_older_versions_stored_is_read():
    stored = {"since": {"stage0/flat": 10}, "rung": {"stage0/flat": 220}}
    alarms = Alarms.from_dict(stored)
    assert alarms.last_warned == {"stage0/flat": 220} and alarms.since == {"stage0/flat": 10}
    assert not rings(lambda step: {}, range(0, 10)) and not check(alarms, 300, stage(0.99))


def test_models_have_no_symptoms_of_their_own_unless_they_say_so():
    assert make("transformer").symptoms({"stage0/F": 1.0, "stage0/target": 4.0}) == []
