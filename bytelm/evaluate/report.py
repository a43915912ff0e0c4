"""The table that `bytelm eval` and the model cards print: a model beside the compressors."""

from collections.abc import Mapping

from bytelm.evaluate.bits import BitsPerByte

_DESCRIPTIONS = {
    "gzip": "gzip -9",
    "xz": "xz -9e",
    "zstd": "zstd -19",
    "ppmd": "ppmd variant I, order 8",
}


def table(
    result: BitsPerByte,
    *,
    name: str,
    compressors: Mapping[str, float],
    primed: Mapping[str, float] | None = None,
) -> str:
    """Plain text, best figure first.

    compressors, primed   name -> bits per byte, see `bytelm.evaluate.compressors`
    """
    rows = [(result.bits_per_byte, name)]
    rows += [(figure, _DESCRIPTIONS[key]) for key, figure in compressors.items()]
    rows += [
        (figure, f"{_DESCRIPTIONS[key]}, primed with the training text")
        for key, figure in (primed or {}).items()
    ]
    lines = [f"{figure:8.4f}  {label}" for figure, label in sorted(rows)]
    return "\n".join(["bits/byte", *lines, "", summary(result)])


def summary(result: BitsPerByte) -> str:
    """What was measured, in one line."""
    reading = "context without a limit"
    if result.window is not None:
        reading = f"context at most {result.window:,} bytes, stride {result.stride:,}"
    speed = f"{result.bytes / result.seconds:,.0f} bytes/s" if result.seconds > 0 else ""
    if result.sampled_from is not None:
        error = result.standard_error
        spread = "unknown" if error is None else f"{error:.4f}"
        return (
            f"A RANDOM SAMPLE of {result.bytes:,} of {result.sampled_from:,} bytes, standard error "
            f"{spread}; {reading}; {speed}"
        )
    return (
        f"{result.bytes:,} bytes in {result.documents:,} documents; {reading}; "
        f"ends {result.end_bits / result.documents:.2f} bits each; {speed}"
    )
