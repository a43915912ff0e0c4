"""`bytelm export`: a run in another form."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Json, complete_models
from bytelm.cli.output import note, print_json
from bytelm.errors import BytelmError, unknown_name
from bytelm.model_paths import require_model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(export)


def _schemes() -> list[str]:
    """Names of the schemes, without torch: `bytelm.nn.quantized` has what they are."""
    return ["int8", "int4-g64", "int4-g128"]


def export(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run directory.", autocompletion=complete_models),
    ],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The new directory.")],
    quantize: Annotated[
        str,
        typer.Option(
            help="Whole numbers for the matrices: int8 (a scale per output), int4-g64 or int4-g128 "
            "(a scale per 64 or 128 inputs).",
            autocompletion=_schemes,
        ),
    ],
    keep: Annotated[
        str | None,
        typer.Option(help="Parts that stay as they are: head, ssm (Mamba-2), or head,ssm."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's model with smaller weights: a directory that every command reads.

    It cannot be trained; keep the run for that. What a scheme costs in bits per byte is in
    docs/quantization.md; `bytelm eval` tells for a model and data of your own.
    """
    if quantize not in _schemes():
        raise BytelmError(unknown_name("quantization scheme", quantize, _schemes()))
    require_model(run)
    parts = [part.strip() for part in keep.split(",")] if keep else []
    from bytelm.hub.quantize import export_quantized

    done = export_quantized(run, out, quantize, keep=parts)
    if json:
        print_json(
            {
                "path": str(out),
                "scheme": done.scheme,
                "layers": len(done.layers),
                "left": list(done.left),
                "bytes_before": done.bytes_before,
                "bytes_after": done.bytes_after,
            }
        )
        return
    if done.left:
        note(
            f"{len(done.left)} matrices stay as they are, as their width is no multiple of the "
            f"group: {', '.join(done.left[:3])}{', ...' if len(done.left) > 3 else ''}"
        )
    note(
        f"{len(done.layers)} matrices in {done.scheme}: {done.bytes_before / 1e6:.2f} MB became "
        f"{done.bytes_after / 1e6:.2f} MB"
    )
    print(out)
