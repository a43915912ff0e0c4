"""What every command that takes a MODEL shares: its arguments, and turning them into one ByteLM."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.errors import BytelmError

if TYPE_CHECKING:
    from bytelm.lm.protocol import ByteLM

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A run directory, a Hugging Face model directory or a .gguf file."
    ),
]
MoreModels = Annotated[
    list[Path] | None,
    typer.Option("--model", help="A further model, to be combined with MODEL; may be repeated."),
]
How = Annotated[
    str,
    typer.Option(
        "--ensemble", help="How to combine models: bayes, switch, mixture, product, proxy."
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Weights of the models, e.g. 1,2 (see Ensemble).")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]


def open_model(
    model: Path,
    more: list[Path] | None = None,
    how: str = "bayes",
    weights: str | None = None,
    threads: int | None = None,
    window: int | None = None,
    stride: int | None = None,
) -> "ByteLM":
    """The model, or the ensemble of several."""
    import torch

    from bytelm.lm.ensemble import Ensemble
    from bytelm.loading import load

    if threads:
        torch.set_num_threads(threads)
    paths = [model, *(more or [])]
    if len(paths) == 1 and weights is not None:
        raise BytelmError("--weights needs several models: add --model PATH")
    lms = [load(path, window=window, stride=stride) for path in paths]
    if len(lms) == 1:
        return lms[0]
    return Ensemble(lms, how, weights=_numbers(weights))  # type: ignore[arg-type]


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise BytelmError(
            f"--weights takes numbers with commas, such as 1,2; not {text!r}"
        ) from None


def read_bytes(path: Path) -> bytes:
    """The file's bytes; `-` is standard input."""
    import sys

    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
