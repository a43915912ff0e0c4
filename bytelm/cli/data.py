"""`bytelm data build` and `bytelm data inspect`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bytelm.cli.common import Json
from bytelm.cli.output import note, print_json
from bytelm.cli.progress import reading_progress
from bytelm.cli.reading import ReadingOptions, tell, with_reading_options
from bytelm.data.bundled import find_data

data = typer.Typer(no_args_is_help=True, help="Build a corpus from any files, or look at one.")

Sections = Annotated[
    Literal["whole", "code", "each"],
    typer.Option(help="Executables whole, cut into sections (each), or only their code."),
]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.add_typer(data, name="data")


@data.command()
@with_reading_options
def build(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, globs, hf:NAME?split=train.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    group: Annotated[
        str | None, typer.Option(help="JSON or column name of what a split keeps together.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="JSON or column name to keep with each record, such as a label."),
    ] = None,
    group_by_folder: Annotated[
        bool,
        typer.Option("--group-by-folder", help="A split keeps the files of a folder together."),
    ] = False,
    sections: Sections = "whole",
    heldout: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of groups for OUT/heldout; the rest goes to OUT/train."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Chooses which groups are held out.")] = 0,
    deduplicate: Annotated[bool, typer.Option(help="Leave out documents of equal bytes.")] = True,
    shard_mib: Annotated[int, typer.Option(min=1, help="Size of a shard file.")] = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a corpus that is there.")
    ] = False,
    json: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Read sources into a corpus on disk: once, in order, all or nothing.

    A build that was interrupted, however it was, resumes when the same command is given again.
    """
    from bytelm.data.corpus.build import build as build_one
    from bytelm.data.corpus.build import build_split

    how = reading.reading(
        group=group,
        columns=tuple(column or ()),
        group_by_folder=group_by_folder,
        sections=sections,
    )
    settings: dict[str, Any] = {
        "reading": how,
        "deduplicate": deduplicate,
        "shard_bytes": shard_mib << 20,
        "overwrite": overwrite,
        "notify": note,
    }
    with reading_progress() as report:
        if heldout:
            split = build_split(paths, out, heldout=heldout, seed=seed, progress=report, **settings)
            built = list(split)
        else:
            built = [build_one(paths, out, progress=report, **settings)]
    results = [
        {
            "path": str(b.path),
            "documents": b.documents,
            "bytes": b.bytes,
            "duplicates_left_out": b.duplicates,
        }
        for b in built
    ]
    tell(how)
    if json:
        print_json({"corpora": results, **how.notes.report()})
        return
    for result in results:
        print(
            f"{result['path']}: {result['documents']} documents, {result['bytes']:,} bytes, "
            f"{result['duplicates_left_out']} duplicates left out"
        )


@data.command()
@with_reading_options
def inspect(
    paths: Annotated[list[str], typer.Argument(help="Corpora, files, folders, globs, hf:NAME.")],
    sections: Sections = "whole",
    sample_mib: Annotated[
        int, typer.Option(min=1, help="How much to compress and to count scripts over.")
    ] = 8,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for bytes.png, lengths.png and formats.png.")
    ] = None,
    json: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Counts, sizes, entropy, formats, scripts, compressibility and duplicates."""
    from bytelm.data.inspect import Inspection
    from bytelm.data.sources import open_source

    how = reading.reading(sections=sections)
    totals = Inspection(sample_bytes=sample_mib << 20)
    size = 0
    with reading_progress() as shown:
        for document in open_source([find_data(path) for path in paths], reading=how):
            totals.add(document)
            size += totals.sizes[-1]
            shown(len(totals.sizes), size)
    report = totals.report()
    tell(how)
    if plots is not None:
        from bytelm.data.plots import plot_inspection

        for path in plot_inspection(totals, plots):
            note(f"wrote {path}")
    if json:
        print_json({**report, **how.notes.report()})
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number:,.10g}" for key, number in value.items()) or "-"
        elif isinstance(value, float):
            value = f"{value:,.4f}"
        elif isinstance(value, int):
            value = f"{value:,}"
        table.add_row(name.replace("_", " "), value)
    console = Console()
    with console.capture() as text:  # printing itself, it would end the process at a closed stdout
        console.print(table)
    print(text.get(), end="")
    if not report["documents"]:
        note("nothing was found: the sources are empty")
