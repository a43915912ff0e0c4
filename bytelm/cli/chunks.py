"""`bytelm chunks`: where a hierarchical model cuts, as coloured text or a page."""

import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Json, ModelOptions, Threads, complete_models, open_model
from bytelm.cli.inputs import note_packed, read_input
from bytelm.cli.output import note, print_json
from bytelm.errors import BytelmError, DataError, printable
from bytelm.model_paths import require_model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(chunks)


def chunks(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The run directory of a hierarchical model.",
            autocompletion=complete_models,
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The file to cut, as it stands; - is stdin.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a standalone page, with how surprising each byte was."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Show at most this many bytes.")] = 4000,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show where a hierarchical model cuts a file: coloured text, an HTML page."""
    require_model(run)
    data = read_input(file)[:max_bytes]
    note_packed(file, data)
    if not data:
        raise DataError(f"{file} is empty: there is nothing to cut")
    from bytelm.evaluate.chunks import html_page, terminal_text
    from bytelm.files import write_text
    from bytelm.lm.native import NativeLM

    lm = open_model(run, ModelOptions(threads=threads))
    if not isinstance(lm, NativeLM):
        raise BytelmError(f"{run} is not a run over bytes: only native hierarchical models cut")
    stages = [stage.tolist() for stage in lm.chunk_boundaries(data)]
    if not stages:
        raise BytelmError(f"the model in {run} has no chunking stage: it reads byte by byte")
    if html:
        title = f"{file.name} as cut by {run.name}"
        bits = (-lm.score(data) / math.log(2)).tolist()
        write_text(html, html_page(data, stages, title=printable(title), bits=bits))
        note(f"wrote {html}")
    counts = [sum(stage) for stage in stages]
    if json:
        positions = [[i for i, cut in enumerate(stage) if cut] for stage in stages]
        lengths = [len(data) / max(count, 1) for count in counts]
        print_json({"bytes": len(data), "boundaries": positions, "bytes_per_chunk": lengths})
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(terminal_text(data, stages, colour=colour, encoding=sys.stdout.encoding or "ascii"))
    for s, count in enumerate(counts):
        note(f"stage {s}: {count:,} chunks, {len(data) / max(count, 1):.2f} bytes per chunk")
