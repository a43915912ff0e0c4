"""`bytelm classify`: which label a trained encoder gives to files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.common import Device, Json, Threads, complete_models
from bytelm.cli.inputs import STDIN, note_packed, require_one_stdin
from bytelm.cli.output import note, print_json
from bytelm.errors import BytelmError, printable
from bytelm.model_paths import require_model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(classify)


def classify(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run directory of an encoder.", autocompletion=complete_models
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files, as they stand; - is stdin."),
    ],
    device: Device = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """The label of each FILE and the probabilities of all labels.

    The model reads the beginning of a file, as far as its context in training. A file that cannot
    be read is named on stderr; the others are classified and the exit code is 2.
    """
    require_model(run)
    require_one_stdin(*files)
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
            note_packed(*texts[-1])
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
    if file == STDIN:
        if sys.stdin is None:
            raise BytelmError("- means standard input, which is closed")
        return sys.stdin.buffer.read(size)
    with file.open("rb") as stream:
        return stream.read(size)


def _print_table(results: list[dict]) -> None:
    """A line per file: name, label, probability."""
    names = [printable(result["file"]) for result in results]
    files = max(map(len, names), default=0)
    labels = max((len(result["label"]) for result in results), default=0)
    for name, result in zip(names, results, strict=True):
        share = result["probabilities"][result["label"]]
        print(f"{name:{files}}  {printable(result['label']):{labels}}  {share:7.2%}")
