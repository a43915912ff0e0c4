"""`Claim`: what somebody says, and the stored result that speaks to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["holds", "partly", "not at this scale", "not tried"]
VERDICTS: tuple[Verdict, ...] = ("holds", "partly", "not at this scale", "not tried")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of docs/evidence.md.

    claim    what is said, in our words
    source   the paper (with its arXiv number) or the file of ours that says it
    verdict  what we found
    result   name of the file in benchmarks/results (without .json) that has the figure
    command  what makes that file; default: the benchmark of the same name
    figure   that file's content -> our figure, as text
    runs     that file's content -> how often it was measured, such as "3 seeds"
    machine  that file's content -> where, as `benchmarks.common.machine` tells; None: not recorded
    check    that file's content -> whether the figure supports a verdict of "holds"
    """

    claim: str
    source: str
    verdict: Verdict
    result: str = ""
    command: str = ""
    figure: Callable[[Any], str] | None = None
    runs: Callable[[Any], str] = lambda result: "once"
    machine: Callable[[Any], Any] = lambda result: (
        result.get("machine") if isinstance(result, dict) else None
    )
    check: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        tried = self.verdict != "not tried"
        assert tried == bool(self.result) == (self.figure is not None), self.claim
        assert (self.verdict == "holds") == (self.check is not None), self.claim


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "seed"), count(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {noun}" + ("s" if number != 1 else "")
