"""The claims of docs/architectures.md, part of those in claims.py."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from benchmarks.claim import Claim, count

COMMAND = "python -m benchmarks.architectures run"


def arm_bits(result: Any, text: str, arm: str) -> float:
    """Mean bits per byte of a model on a text over its seeds."""
    found = [r["bits_per_byte"] for r in result["runs"] if (r["text"], r["arm"]) == (text, arm)]
    return mean(found)


def beside(*arms: str) -> Callable[[Any], str]:
    """Bits per byte of these models on every text that all were trained on, in words."""

    def text(result: Any) -> str:
        parts = []
        for name in dict.fromkeys(run["text"] for run in result["runs"]):
            here = {run["arm"] for run in result["runs"] if run["text"] == name}
            if here >= set(arms):
                bits = ", ".join(f"{arm} {arm_bits(result, name, arm):.3f}" for arm in arms)
                parts.append(f"{name}: {bits}")
        return "; ".join(parts) + f" bits/byte after {result['bytes'] / 1000:.0f} kB"

    return text


def arm_seeds(result: Any) -> str:
    """How many seeds there are at least per text and model."""
    found: dict[tuple[str, str], int] = {}
    for run in result["runs"]:
        key = run["text"], run["arm"]
        found[key] = found.get(key, 0) + 1
    return f"at least {count(min(found.values()), 'seed')} each"


ARCHITECTURE_CLAIMS = (
    Claim(
        claim="At equal compute MegaByte is level with a byte Transformer with a sliding window",
        source="SpaceByte (table 1), arXiv:2404.14408",
        result="architectures",
        command=COMMAND,
        figure=beside("MegaByte, P = 8", "flat, window 128"),
        runs=arm_seeds,
        verdict="not at this scale",
    ),
    Claim(
        claim="At equal compute chunks at word boundaries are better than none, in a Transformer",
        source="SpaceByte (table 1), arXiv:2404.14408",
        result="architectures",
        command=COMMAND,
        figure=beside("SpaceByte", "flat, window 128", "flat"),
        runs=arm_seeds,
        verdict="not at this scale",
    ),
    Claim(
        claim="At equal compute chunks at word boundaries are better than patches of equal length",
        source="SpaceByte (table 1), arXiv:2404.14408",
        result="architectures",
        command=COMMAND,
        figure=beside("SpaceByte", "MegaByte, P = 8"),
        runs=arm_seeds,
        verdict="holds",
        check=lambda r: all(
            arm_bits(r, text, "SpaceByte") < arm_bits(r, text, "MegaByte, P = 8")
            for text in dict.fromkeys(run["text"] for run in r["runs"])
            if {"SpaceByte", "MegaByte, P = 8"}
            <= {run["arm"] for run in r["runs"] if run["text"] == text}
        ),
    ),
)
