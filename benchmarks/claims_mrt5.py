"""The claims about MrT5, part of those in claims.py."""

from statistics import median
from typing import Any

from benchmarks.claim import Claim, count


def saved(row: Any, part: str, rate: str) -> float:
    """Share of the CPU seconds of a T5 that deleting `rate` of its source saves."""
    return 1 - median(row[part][rate]) / median(row[part]["t5"])


def _saved_text(result: Any) -> str:
    return "; ".join(
        f"{row['length']} bytes: encoder {saved(row, 'encoder', '50%'):.0%}, forward "
        f"{saved(row, 'forward', '50%'):.0%} less at 50 % deleted"
        for row in result["rows"]
    )


MRT5_CLAIMS = (
    Claim(
        claim="A deletion gate learns to delete what the task does not need and nothing else: the "
        "vowels of sources whose targets have none",
        source="models/mrt5-tiny.md; MrT5, arXiv:2410.20771",
        result="vowels",
        command="python -m benchmarks.vowels RUN...",
        figure=lambda r: (
            "; ".join(
                f"{run['deleted']:.1%} deleted of {run['vowels']:.1%} vowels, "
                f"{run['deleted_that_are_vowels']:.1%} of it vowels; exact "
                f"{run['greedy']:.1%} greedily, {run['beams']:.1%} with 4 beams"
                for run in r["runs"]
            )
            + f", of {r['pairs']} held-out targets, deletion hard"
        ),
        runs=lambda r: count(len(r["runs"]), "seed"),
        verdict="holds",
        check=lambda r: all(
            run["deleted_that_are_vowels"] > 0.99
            and run["vowels_that_are_deleted"] > 0.99
            and run["greedy"] > 0.95
            for run in r["runs"]
        ),
    ),
    Claim(
        claim="Deleting half of a source behind the third encoder layer saves at least 30 % of the "
        "time of the encoder and of a whole forward pass (random weights, gate set to the rate)",
        source="MrT5 (32 % on a GPU), arXiv:2410.20771",
        result="mrt5_time",
        figure=_saved_text,
        verdict="holds",
        check=lambda r: all(
            saved(row, part, "50%") >= 0.3 for row in r["rows"] for part in ("encoder", "forward")
        ),
    ),
)
