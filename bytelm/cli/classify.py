"""`bytelm classify`: which label a trained encoder gives to files."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Threads
from bytelm.cli.output import note, print_json


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(classify)


def classify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of an encoder.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files; - is standard input.")
    ],
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu (the default), cuda, cuda:1 ...")
    ] = None,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """The label of each FILE and the probabilities of all labels.

    The model reads the beginning of a file, as far as its context in training. A file that cannot
    be read is named on stderr; the others are classified and the exit code is 2.
    """
    import torch

    from bytelm.loading import load_classifier

    if threads:
        torch.set_num_threads(threads)
    classifier = load_classifier(run, device=device)
    texts: list[tuple[Path, bytes]] = []
    failed = False
    for file in files:
        try:
            texts.append((file, _beginning(file, classifier.window)))
        except OSError as error:
            note(f"error: {file}: {error.strerror or error}")
            failed = True
    probabilities = classifier.predict([text for _, text in texts]).tolist()
    results = [
        {
            "file": str(file),
            "label": classifier.labels[row.index(max(row))],
            "probabilities": dict(zip(classifier.labels, row, strict=True)),
        }
        for (file, _), row in zip(texts, probabilities, strict=True)
    ]
    if json:
        print_json({"results": results})
    else:
        _print_table(results)
    if failed:
        raise typer.Exit(2)


def _beginning(file: Path, size: int) -> bytes:
    """The first `size` bytes of a file or of standard input."""
    import sys

    if str(file) == "-":
        return sys.stdin.buffer.read(size)
    with file.open("rb") as stream:
        return stream.read(size)


def _print_table(results: list[dict]) -> None:
    """A line per file: name, label, probability."""
    files = max((len(result["file"]) for result in results), default=0)
    labels = max((len(result["label"]) for result in results), default=0)
    for result in results:
        share = result["probabilities"][result["label"]]
        print(f"{result['file']:{files}}  {result['label']:{labels}}  {share:7.2%}")
