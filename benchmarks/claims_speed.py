"""What was claimed of speed and of smaller weights, and how it came out: part of claims.py."""

from typing import Any

from benchmarks.claim import Claim, count
from benchmarks.figures import decoding_holds, decoding_text


def _int8_costs(result: Any) -> dict[str, float]:
    """Bits per byte that int8 in all linear layers adds, per model."""
    return {
        model["model"]: row["cost"]
        for model in result["results"]
        for row in model["rows"]
        if row["scheme"] == "int8" and not row["keep"]
    }


SPEED_CLAIMS = (
    Claim(
        claim="A flat Transformer is decoded at least 3 times as fast as by transformers' generate "
        "with its cache, Mamba-2 and H-Net at least 4 times as fast as from immutable states, 16 "
        "texts at once at least 2.5 times, all with the same texts",
        source="docs/LOG.md",
        result="decoding",
        figure=decoding_text,
        runs=lambda r: count(r["rounds"], "round"),
        verdict="holds",
        check=decoding_holds,
    ),
    Claim(
        claim="int8 weights cost at most 0.005 bits per byte",
        source="docs/quantization.md",
        result="quantization",
        command="python -m benchmarks.quantization RUN RUN --smollm2",
        figure=lambda r: (
            ", ".join(f"{model} {cost:+.4f}" for model, cost in _int8_costs(r).items())
            + " bits/byte"
        ),
        runs=lambda r: "1 seed",
        verdict="holds",
        check=lambda r: max(_int8_costs(r).values()) <= 0.005,
    ),
)
