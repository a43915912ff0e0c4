"""log.profile_steps leaves a trace of these steps and no others."""

import json

import pytest

from bytelm.errors import RecipeError
from bytelm.training import train
from tests.training.runs import outcome, tiny_recipe


def traced_steps(run) -> int:
    """How many backward passes the trace saw, by the one cross-entropy each of them has."""
    events = json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    return sum(event["name"] == "aten::nll_loss_backward" for event in events)


@pytest.mark.parametrize(
    ("steps", "expected"), [("[3, 5]", 3), ("[4, 4]", 1), ("[11, 99]", 2)], ids=str
)
def test_the_trace_holds_the_steps_asked_for(tmp_path, steps, expected):
    alone = outcome(train(tiny_recipe(tmp_path), run_dir=tmp_path / "alone"))
    recipe = tiny_recipe(tmp_path, f"log.profile_steps={steps}")
    run = train(recipe, run_dir=tmp_path / "run")
    assert traced_steps(run) == expected
    assert outcome(run) == alone


@pytest.mark.parametrize(
    ("steps", "message"),
    [("[5, 3]", "must be in order"), ("[3]", "profile_steps"), ("[13, 14]", "no effect")],
)
def test_a_range_that_cannot_be_is_refused(tmp_path, steps, message):
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(tmp_path, f"log.profile_steps={steps}")
