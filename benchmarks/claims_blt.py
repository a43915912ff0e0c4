"""The claim of blt_generation.py, part of those in claims.py."""

from typing import Any

from benchmarks.claim import Claim, count

WANTED = 20.0  # times transformers


def _rows(result: Any) -> dict[str, Any]:
    return result["rows"]


def ratios(result: Any) -> str:
    """Bytes per CPU second against transformers, for every number of texts at once."""
    parts = [
        f"{found['ratio']:.1f} times for {count(int(rows), 'text')} at once"
        for rows, found in _rows(result).items()
    ]
    same = all(found["same_bytes"] for found in _rows(result).values())
    return ", ".join(parts) + (", the same bytes" if same else ", other bytes")


BLT_CLAIMS = (
    Claim(
        claim="Behind 512 bytes of context, the reading of which is counted, BLT writes 256 bytes "
        "at least 20 times as fast as transformers does with the same weights and "
        "`use_cache=False`, its only mode whose text is right",
        source="models/blt-tiny.md",
        result="blt_generation",
        figure=ratios,
        runs=lambda r: count(len(_rows(r)["1"]["transformers_seconds"]), "repeat"),
        verdict="holds",
        check=lambda r: all(
            found["same_bytes"] and found["ratio"] >= WANTED for found in _rows(r).values()
        ),
    ),
)
