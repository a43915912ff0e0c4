"""What was claimed of speed, and how it came out: part of the claims in claims.py."""

from benchmarks.claim import Claim, count
from benchmarks.figures import decoding_holds, decoding_text

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
)
