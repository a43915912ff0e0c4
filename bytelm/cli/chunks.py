"""`bytelm chunks`: where hierarchical models cut, as coloured text or a page; what MrT5 deletes."""

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.common import Json, ModelOptions, Threads, complete_models, open_model
from bytelm.cli.inputs import note_packed, read_input
from bytelm.cli.output import note, print_json
from bytelm.errors import BytelmError, DataError, printable
from bytelm.model_paths import require_model

if TYPE_CHECKING:
    from bytelm.evaluate.chunks import Cut


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(chunks)


def chunks(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="The run directories of hierarchical models.",
            autocompletion=complete_models,
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The file to cut, as it stands; - is stdin.")],
    html: Annotated[
        Path | None,
        typer.Option(
            help="Also write a standalone page, with how surprising each byte was; several runs "
            "stand side by side."
        ),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Show at most this many bytes.")] = 4000,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show where hierarchical models cut a file: coloured text, an HTML page.

    Of a model that deletes bytes of its source (MrT5), those are struck out.
    """
    for run in runs:
        require_model(run)
    data = read_input(file)[:max_bytes]
    note_packed(file, data)
    if not data:
        raise DataError(f"{file} is empty: there is nothing to cut")
    if any(_deletes(run) for run in runs):
        if len(runs) > 1 or html is not None:
            raise BytelmError(
                "what a model deletes is shown for one run at a time and without --html: give only "
                f"{next(run for run in runs if _deletes(run))}"
            )
        _show_deleted(runs[0], data, threads, json=json)
        return
    from bytelm.evaluate.chunks import html_page
    from bytelm.files import write_text

    cuts = [_cut(run, data, threads, scored=html is not None) for run in runs]
    if html:
        names = " and ".join(cut.name for cut in cuts)
        write_text(html, html_page(data, cuts, title=printable(f"{file.name} as cut by {names}")))
        note(f"wrote {html}")
    if json:
        reports = [_report(data, cut) for cut in cuts]
        several = [{"run": str(run), **r} for run, r in zip(runs, reports, strict=True)]
        print_json(reports[0] if len(runs) == 1 else {"runs": several})
        return
    for cut in cuts:
        _show(data, cut, named=len(cuts) > 1)


def _cut(run: Path, data: bytes, threads: int | None, *, scored: bool) -> "Cut":
    """Where the model of a run cuts, and if `scored` how many bits each byte took."""
    from bytelm.evaluate.chunks import Cut
    from bytelm.lm.native import NativeLM

    lm = open_model(run, ModelOptions(threads=threads))
    if not isinstance(lm, NativeLM):
        raise BytelmError(f"{run} is not a run over bytes: only native hierarchical models cut")
    stages = [stage.tolist() for stage in lm.chunk_boundaries(data)]
    if not stages:
        raise BytelmError(f"the model in {run} has no chunking stage: it reads byte by byte")
    bits = (-lm.score(data) / math.log(2)).tolist() if scored else None
    return Cut(name=run.name, stages=stages, bits=bits)


def _deletes(run: Path) -> bool:
    """Whether a run reads a source, of which it may delete bytes."""
    from bytelm.run import Run

    return Run(run).has_model and Run(run).description().family == "seq2seq"


def _show_deleted(run: Path, data: bytes, threads: int | None, *, json: bool) -> None:
    from bytelm.evaluate.deletion import struck_text
    from bytelm.lm.seq2seq import Seq2SeqLM

    lm = open_model(run, ModelOptions(threads=threads))
    assert isinstance(lm, Seq2SeqLM), "the family says so"
    deleted = lm.deleted_bytes(data)
    if json:
        places = [i for i, gone in enumerate(deleted) if gone]
        print_json({"bytes": len(data), "deleted": places, "share": len(places) / len(data)})
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(struck_text(data, deleted, colour=colour, encoding=sys.stdout.encoding or "ascii"))
    note(f"{sum(deleted):,} of {len(data):,} bytes deleted, {sum(deleted) / len(data):.1%}")


def _report(data: bytes, cut: "Cut") -> dict[str, object]:
    positions = [[i for i, start in enumerate(stage) if start] for stage in cut.stages]
    lengths = [len(data) / max(len(found), 1) for found in positions]
    return {"bytes": len(data), "boundaries": positions, "bytes_per_chunk": lengths}


def _show(data: bytes, cut: "Cut", *, named: bool) -> None:
    from bytelm.evaluate.chunks import terminal_text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if named:
        print(f"{printable(cut.name)}:")
    print(terminal_text(data, cut.stages, colour=colour, encoding=sys.stdout.encoding or "ascii"))
    for s, count in enumerate(sum(stage) for stage in cut.stages):
        of = f"{printable(cut.name)}, " if named else ""
        note(f"{of}stage {s}: {count:,} chunks, {len(data) / max(count, 1):.2f} bytes per chunk")
