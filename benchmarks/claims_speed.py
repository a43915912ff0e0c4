"""What was claimed of speed, and how it came out: part of the claims in claims.py."""

from typing import Any

from benchmarks.claim import Claim, count
from benchmarks.figures import decoding_holds, decoding_text


def _threads_text(result: Any) -> str:
    """Wall time of one thread over that of all, per job."""
    ratios = []
    for job, seconds in result["seconds"].items():
        one, many = seconds.values()
        ratios.append(f"{job} {one / many:.2f} times as fast")
    size = result["train_bytes"] / 2**20
    return f"{', '.join(ratios)} ({size:.0f} MiB to {result['vocabulary']} tokens)"


def _training_text(result: Any) -> str:
    """Against Llama, and against the older revision."""
    against = [
        f"{row['ratio']:.2f} times Llama in {row['dtype']}{', compiled' * row['compiled']} at "
        f"{row['share_of_peak']:.0%} of a matrix product's rate"
        for row in result["models"]
    ]
    older = [
        f"{row['recipe']} {row['ratio']:.2f} times the older revision in {row['dtype']}"
        for row in result["revisions"]
    ]
    return "; ".join((*against, *older))


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
        claim="Binary BPE on two cores trains at least 1.5 times as fast as on one, encodes and "
        "decodes at least 1.8 times as fast, with the same merges, ids and bytes",
        source="docs/binary-bpe.md",
        result="bpe_threads",
        command="python -m benchmarks.bpe_threads /usr/lib --mib 400",
        figure=_threads_text,
        verdict="partly",
    ),
    Claim(
        claim="A flat Transformer trains at least 1.3 times as fast as transformers' Llama of the "
        "same shape, and at 65 % or more of the rate of a matrix product",
        source="docs/LOG.md",
        result="training_speed",
        figure=_training_text,
        verdict="partly",
    ),
)
