"""What every command that takes a MODEL shares: its options, and turning them into one ByteLM."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

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
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How MODEL is opened. None leaves the default to the kind of model (`bytelm.load`)."""

    more: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="A further model, to be combined with MODEL; may be repeated."
        ),
    ] = None
    ensemble: Annotated[
        str, typer.Option(help="How to combine models: bayes, switch, mixture, product, proxy.")
    ] = "bayes"
    weights: Annotated[
        str | None, typer.Option(help="Weights of the models, e.g. 1,2 (see Ensemble).")
    ] = None
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes of context; default: a run's in training, else no limit."),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes dropped when the window is full; default: half of it."),
    ] = None
    mode: Annotated[
        Literal["all", "canonical", "canonicalised"] | None,
        typer.Option(
            help="Which token strings of the bytes count, for a model over tokens. Default: all "
            "for a converted model, canonical for a run."
        ),
    ] = None
    beam: Annotated[
        int | None, typer.Option(min=1, help="Hypotheses kept by mode all; default: 8.")
    ] = None
    epsilon: Annotated[
        float | None,
        typer.Option(help="Share of the mass below which mode all drops one; default: 0.001."),
    ] = None
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu (the default), cuda, cuda:1 ...")
    ] = None
    threads: Threads = None


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option per field of `ModelOptions` in place of its `options`."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "options"]
    hints = get_type_hints(ModelOptions, include_extras=True)
    names = [field.name for field in fields(ModelOptions)]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(ModelOptions)
    ]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        options = ModelOptions(**{name: values.pop(name) for name in names})
        command(**values, options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def open_model(model: Path, options: ModelOptions | None = None) -> "ByteLM":
    """The model, or the ensemble of several.

    An option goes to every model whose kind takes it, and is an error if none does.
    """
    import torch

    from bytelm.lm.ensemble import Ensemble
    from bytelm.loading import load, options_of

    options = options or ModelOptions()
    if options.threads:
        torch.set_num_threads(options.threads)
    paths = [model, *(options.more or [])]
    if len(paths) == 1 and options.weights is not None:
        raise BytelmError("--weights needs several models: add --model PATH")
    given = _given(options)
    if len(paths) == 1:
        return load(model, **given)
    takes = [options_of(path) for path in paths]
    for name in given:
        if not any(name in allowed for allowed in takes):
            raise BytelmError(f"--{name} means nothing for any of these models")
    lms = [
        load(path, **{name: value for name, value in given.items() if name in allowed})
        for path, allowed in zip(paths, takes, strict=True)
    ]
    return Ensemble(lms, options.ensemble, weights=_numbers(options.weights))  # type: ignore[arg-type]


def _given(options: ModelOptions) -> dict[str, Any]:
    """The options of `bytelm.load` that were given."""
    names = ("window", "stride", "mode", "beam", "epsilon", "device")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


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
