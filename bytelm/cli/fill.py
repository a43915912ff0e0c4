"""`bytelm fill`: which words fit into the gaps of a text."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Device, Json, Threads, complete_models
from bytelm.cli.inputs import read_input
from bytelm.cli.output import print_json
from bytelm.errors import BytelmError, printable
from bytelm.model_paths import require_model

GAP = b"[MASK]"


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(fill)


def fill(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The run directory of an encoder trained with objective.kind=masked_words.",
            autocompletion=complete_models,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(help="The text, with [MASK] for each word that is missing.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option(help="The same as a file of any bytes; - is stdin.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="Words shown for each gap.")] = 5,
    device: Device = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show the likeliest words for each [MASK] of a text, and the text with the first of them.

    A word is looked for with the space in front of it.
    """
    require_model(run)
    if (text is None) == (text_file is None):
        raise BytelmError("give the text with either --text or --text-file")
    data = read_input(text_file) if text_file else str(text).encode("utf-8", "surrogateescape")
    import torch

    from bytelm.loading import load_filler

    if threads:
        torch.set_num_threads(threads)
    parts = data.split(GAP)
    gaps = load_filler(run, device=device).fill(parts, top=top)
    filled = parts[0]
    for found, part in zip(gaps, parts[1:], strict=True):
        filled = filled.removesuffix(b" ") + found[0].word + part
    if json:
        print_json(
            {
                "text": filled.decode("utf-8", "replace"),
                "gaps": [
                    [
                        {
                            "word": filling.word.decode("utf-8", "replace"),
                            "probability": filling.probability,
                        }
                        for filling in found
                    ]
                    for found in gaps
                ],
            }
        )
        return
    print(printable(filled.decode("utf-8", "replace")))
    for number, found in enumerate(gaps):
        for filling in found:
            word = printable(filling.word.decode("utf-8", "replace"))
            print(f"{number + 1:4}  {filling.probability:7.2%}  {word}")
