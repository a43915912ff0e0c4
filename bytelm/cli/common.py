"""What every command that takes a MODEL shares: its options, and turning them into one ByteLM."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bytelm.cli.option_groups import Command, with_option_group
from bytelm.errors import BytelmError, unknown_name

if TYPE_CHECKING:
    from bytelm.lm.protocol import ByteLM


def complete_models(incomplete: str) -> list[str]:
    """The models whose paths begin so, and those in ./runs."""
    from bytelm.model_paths import models_in

    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    found = [str(path) for path in (*models_in(folder), *models_in(Path("runs")))]
    return sorted({path for path in found if path.startswith(incomplete)})


def complete_devices(incomplete: str) -> list[str]:
    """The kinds of device that begin so."""
    return [name for name in ("auto", "cpu", "cuda", "mps") if name.startswith(incomplete)]


def check_device(name: str | None) -> str | None:
    """A mistaken name is found here, before torch is asked what there is."""
    if name is not None and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise BytelmError(unknown_name("device", name, ["auto", "cpu", "cuda", "cuda:1", "mps"]))
    return name


Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run directory, a Hugging Face model directory or a .gguf file.",
        autocompletion=complete_models,
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: auto (the fastest there is), cpu (the default), cuda, cuda:1, mps.",
        autocompletion=complete_devices,
        callback=check_device,
    ),
]
OPTIONS = {"ends": "end"}  # options of `bytelm.load` that are called otherwise here
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How MODEL is opened. None leaves the default to the kind of model (`bytelm.load`)."""

    more: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            help="A further model, to be combined with MODEL; may be repeated.",
            autocompletion=complete_models,
        ),
    ] = None
    ensemble: Annotated[
        Literal["bayes", "switch", "mixture", "product", "proxy"] | None,
        typer.Option(help="How to combine several models; default: bayes."),
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="Weights of the models, e.g. 1,2 (see Ensemble).")
    ] = None
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes of context; default: a run's in training, else what fits."),
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
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the mass below which mode all drops one; default: 0.001.",
        ),
    ] = None
    start: Annotated[
        str | None,
        typer.Option(
            help="Ids of a converted model that stand before every text, e.g. 1 or 1,2; default: "
            "what its tokenizer says."
        ),
    ] = None
    end: Annotated[
        list[str] | None,
        typer.Option(
            help="A special token of a converted model, by id or name, that ends a text besides "
            "those it says itself; may be repeated."
        ),
    ] = None
    device: Device = None
    threads: Threads = None

    def check(self, model: Path) -> None:
        """`BytelmError` for what can be told to be a mistake without torch: paths that are no
        models, options of several models beside a single one, lists that are none."""
        from bytelm.model_paths import require_model

        for path in (model, *(self.more or ())):
            require_model(path)
        for name in () if self.more else ("ensemble", "weights"):
            if getattr(self, name) is not None:
                raise BytelmError(f"--{name} needs several models: add --model PATH")
        self.loading_options()
        numbers("--weights", self.weights, float)

    def loading_options(self) -> dict[str, Any]:
        """The options of `bytelm.load` that were given."""
        names = ("window", "stride", "mode", "beam", "epsilon", "device")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        start = numbers("--start", self.start, int)
        if start is not None:
            given["start"] = start
        if self.end:
            given["ends"] = [int(name) if name.isdecimal() else name for name in self.end]
        return given


def with_model_options(command: Command) -> Command:
    """The command with one option per field of `ModelOptions` in place of its `options`, checked
    before it begins. The command has a parameter `model`."""

    @functools.wraps(command)
    def checked(**values: Any) -> None:
        values["options"].check(values["model"])
        command(**values)

    return with_option_group(checked, parameter="options", group=ModelOptions)


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
    given = options.loading_options()
    paths = [model, *(options.more or [])]
    if len(paths) == 1:
        return load(model, **given)
    takes = [options_of(path) for path in paths]
    for name in given:
        if not any(name in allowed for allowed in takes):
            raise BytelmError(f"--{OPTIONS.get(name, name)} means nothing for any of these models")
    lms = [
        load(path, **{name: value for name, value in given.items() if name in allowed})
        for path, allowed in zip(paths, takes, strict=True)
    ]
    weights = numbers("--weights", options.weights, float)
    return Ensemble(lms, options.ensemble or "bayes", weights=weights)


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any] | None:
    """A list given as text with commas; `BytelmError` if it is none.

    >>> numbers("--weights", "1,2.5", float)
    [1.0, 2.5]
    """
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise BytelmError(
            f"{option} takes numbers with commas, such as 1,2; not {text!r}"
        ) from None


def complete_recipes(incomplete: str) -> Iterator[tuple[str, str]]:
    """(name, what it is) of the recipes that begin so."""
    from bytelm.recipe import recipe_folders

    for folder in recipe_folders():
        for path in sorted(folder.glob(f"{incomplete}*.toml")):
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            yield path.stem, first.removeprefix("#").strip()
