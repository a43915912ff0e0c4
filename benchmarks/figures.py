"""What the claims of benchmarks/claims.py read from the results of single benchmarks."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from benchmarks.claim import count

WAYS = ("steps", "scoring")  # how exact_genlm uses a model: byte by byte, or a known text at once


def bits(result: Any, model: str) -> float:
    """Mean bits per byte over the runs of a model."""
    return mean(run["bits_per_byte"] for run in result["runs"][model])


def side_by_side(*models: str) -> Any:
    """Bits per byte of these models of an equal-compute result, in words."""
    return lambda result: (
        ", ".join(f"{model} {bits(result, model):.3f}" for model in models)
        + f" bits/byte after {result['seconds']:.0f} CPU seconds"
    )


def seeds(result: Any) -> str:
    """How many seeds each model of an equal-compute result has."""
    counts = {len(runs) for runs in result["runs"].values()}
    return count(min(counts), "seed")


def card_bits(result: Any, name: str) -> float:
    """Mean bits per byte over the seeds of a recipe's card."""
    return mean(run["bits_per_byte"] for run in result[name]["runs"])


def card_text(name: str) -> Any:
    """Bits per byte of each seed of a recipe's card beside ppmd, in words."""

    def text(result: Any) -> str:
        card = result[name]
        seeds = ", ".join(f"{run['bits_per_byte']:.3f}" for run in card["runs"])
        return (
            f"{seeds} bits/byte after {mean(run['minutes'] for run in card['runs']):.1f} minutes; "
            f"ppmd {card['cold']['ppmd']:.3f}, primed with the training text "
            f"{card['primed']['ppmd']:.3f}"
        )

    return text


def training_ratio(result: Any, case: str) -> float:
    """CPU seconds of Hugging Face's trainer by ours on one case."""
    seconds = {r["trainer"]: r["cpu_s"] for r in result["runs"] if r["case"] == case}
    return seconds["hf"] / seconds["ours"]


def trained_by_both(result: Any) -> list[str]:
    """The cases that Hugging Face's trainer ran, too."""
    return sorted({r["case"] for r in result["runs"] if r["trainer"] == "hf"})


def same_merges(result: Any) -> bool:
    """Whether both trainers found the same merges in the same order in each of these cases."""
    runs = [run for run in result["runs"] if "merges" in run]
    return all(
        len({run["merges_sha256"] for run in runs if run["case"] == case}) == 1
        for case in trained_by_both(result)
    )


def encoding(result: Any) -> list[float]:
    """Our speed by Hugging Face's in encoding 8 KiB pieces, per vocabulary."""
    return [
        row["mib_per_cpu_s"]["ours"] / row["mib_per_cpu_s"]["hf"]
        for row in result["rows"]
        if row["what"] == "encode, 8 KiB pieces"
    ]


def span(values: list[float], form: str = ".0f") -> str:
    """
    >>> span([2.0, 1.0, 3.0])
    '1 to 3'
    """
    return f"{min(values):{form}} to {max(values):{form}}"


def texts(result: Any) -> list[Any]:
    """The part of an exact_* result that belongs to each text, in its order."""
    return list(result["results"].values())


def beam(result: Any, width: int, epsilon: str) -> list[float]:
    """Bits per byte of each text with a beam."""
    return [t[f"beam K={width} eps={epsilon}"]["bits_per_byte"] for t in texts(result)]


def all_of(values: list[float], form: str = ".4f") -> str:
    """
    >>> all_of([1.0, 2.5], ".1f")
    '1.0 / 2.5'
    """
    return " / ".join(f"{value:{form}}" for value in values)


def times_bytelm(result: Any, reader: str) -> list[float]:
    """CPU time of a reader by ours, per batch size."""
    return [row["times_bytelm"] for row in result["rows"] if row["reader"] == reader]


def excess(result: Any) -> list[float]:
    """Bits in all by which the Bayes mixture is above its best member, per text."""
    return [(text["bayes"] - better(text)) * text["bytes"] for text in texts(result)]


def better(text: Any) -> float:
    """Bits per byte of the better member of exact_ensemble on one text."""
    return min(text["SmolLM2-135M"], text["H-Net trained here"])


def genlm_speeds(result: Any) -> list[float]:
    """Our bytes per second by those of genlm-bytes, per text and way of use."""
    return [t[how]["ratio"]["bytes_per_second"] for t in texts(result) for how in WAYS]


def genlm_differences(result: Any, way: str) -> list[float]:
    """Bits per byte, ours less those of genlm-bytes, per text."""
    return [
        t[way]["bytelm"]["bits_per_byte"] - t[way]["genlm-bytes"]["bits_per_byte"]
        for t in texts(result)
    ]


def decoding_text(result: Any) -> str:
    """Speed-ups of compiled decoding over its baseline, model by model."""
    return "; ".join(
        f"{row['model']}, {count(row['batch'], 'text')}: {speedup:.1f} times as fast as {base}"
        for row in result["decoding"]
        for base, speedup in [_decoding_speedup(row)]
    )


def decoding_holds(result: Any) -> bool:
    """3 times transformers, 4 times immutable states, 2.5 times for 16 texts; the same texts."""
    wanted = {"transformers": 3.0, "immutable states": 4.0}
    return all(
        row["identical_texts"] and speedup >= (wanted[base] if row["batch"] == 1 else 2.5)
        for row in result["decoding"]
        for base, speedup in [_decoding_speedup(row)]
    )


def _decoding_speedup(row: Any) -> tuple[str, float]:
    """The baseline of one table of the decoding benchmark, and the speed-up over it."""
    rates = row["rates"]["compiled"]
    if row["batch"] == 1 and "x transformers" in rates:
        return "transformers", rates["x transformers"]
    return "immutable states", rates["x immutable"]


def run_bits(result: dict[str, Any], name: str) -> float:
    """Bits per byte of the first seed of one run of `hnet_study`."""
    return next(row["bits_per_byte"] for row in result["runs"] if row["name"] == name)


def study_bits(*names: str) -> Callable[[dict[str, Any]], str]:
    """Those runs of `hnet_study` side by side."""
    return lambda result: (
        ", ".join(f"{name} {run_bits(result, name):.3f}" for name in names) + " bits/byte"
    )
