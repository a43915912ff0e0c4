"""Long work shows how far it is: one mechanism, on stderr alone, nothing of short work."""

import io

import pytest
from rich.console import Console

from bytelm.evaluate.bits import evaluate_bits
from bytelm.lm.ensemble import Ensemble
from bytelm.lm.ngram import NgramLM
from bytelm.lm.scored import watch_scored
from bytelm.loading import load
from bytelm.progress import LINE_SECONDS, QUIET_SECONDS, ProgressDisplay

from .conftest import TEXT


class Clock:
    """Seconds that pass by one at each look."""

    def __init__(self) -> None:
        self.now = -1.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_without_a_terminal_there_is_a_line_after_two_seconds_and_then_every_ten():
    lines: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=False)
    display = ProgressDisplay(clock=Clock(), write=lines.append, console=console)
    for second in range(1, 30):
        display.show(str(second), second / 30)
    assert lines == [str(int(QUIET_SECONDS + i * LINE_SECONDS)) for i in range(3)]


def test_on_a_terminal_there_is_one_bar_and_messages_stay_above_it():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, highlight=False)
    display = ProgressDisplay(clock=Clock(), console=console)
    display.show("early", 0.1)
    assert screen.getvalue() == ""
    display.show("halfway", 0.5)
    display.message("a [message]")
    display.close()
    assert "halfway" in screen.getvalue() and "a [message]" in screen.getvalue()
    display.show("late", 1.0)
    assert "late" not in screen.getvalue()


def test_silence_is_silent():
    console = Console(file=io.StringIO(), force_terminal=True)
    display = ProgressDisplay(silent=True, quiet=0, console=console, write=pytest.fail)
    display.show("x", 0.5)
    display.message("y")
    assert console.file.getvalue() == ""


def models(runs):
    flat, hnet = load(runs / "flat"), load(runs / "hnet")
    yield flat
    yield load(runs / "subword").tokens
    yield load(runs / "subword", mode="canonical")
    yield load(runs / "subword", mode="all", window=20)
    yield Ensemble([flat, hnet], how="bayes")
    yield Ensemble([flat, hnet], how="product")


def test_every_kind_of_model_tells_how_many_bytes_it_has_scored(runs):
    """All bytes, or all but one per text, in more than one piece where it takes long."""
    for lm in models(runs):
        reports: list[float] = []
        with watch_scored(reports.append):
            evaluate_bits(lm, [TEXT])
        assert abs(sum(reports) - len(TEXT)) <= 0.3 * len(TEXT), lm
        assert len(reports) > 1, lm
    evaluate_bits(NgramLM.train([b"ab"], order=1), [TEXT])  # nobody watches


@pytest.fixture
def impatient(monkeypatch):
    """Everything takes long."""
    monkeypatch.setattr("bytelm.progress.QUIET_SECONDS", 0.0)
    monkeypatch.setattr(ProgressDisplay.__init__, "__kwdefaults__", {
        **ProgressDisplay.__init__.__kwdefaults__, "quiet": 0.0})  # fmt: skip


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["eval", "{runs}/flat", "{runs}/text"], "evaluating: "),
        (["eval", "{runs}/flat", "{runs}/text"], "compressing the same bytes: "),
        (["score", "{runs}/flat", "{runs}/text", "--json"], "scoring: "),
        (
            ["tokenizer", "train", "{runs}/text", "--vocab-size", "270", "--out", "{out}"],
            "training",
        ),
    ],
)
def test_commands_show_progress_on_stderr(runs, bytelm, impatient, tmp_path, command, shown):
    out, err = bytelm(*(word.format(runs=runs, out=tmp_path / "out") for word in command))
    assert shown in err and shown.encode() not in out


def test_short_work_shows_nothing(runs, bytelm):
    (runs / "brief").write_bytes(b"sea")
    assert bytelm("score", runs / "flat", runs / "brief", "--json")[1] == ""
