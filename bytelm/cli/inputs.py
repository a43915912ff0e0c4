"""What a command reads: files, standard input for `-`, and a prompt that is piped into it.

Standard input can be read once; a second use of it is an error and not an empty text.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.output import note
from bytelm.data.bundled import find_data
from bytelm.errors import BytelmError
from bytelm.paths import to_path

STDIN = Path("-")
REMIND_SECONDS = 2.0

Prompt = Annotated[
    str | None, typer.Option(help="The text to begin with; default: what is piped in.")
]
PromptFile = Annotated[Path | None, typer.Option(help="The same from a file; - is stdin.")]
ContextText = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="What stands before the text; the source that an encoder-decoder reads.",
    ),
]
ContextFile = Annotated[Path | None, typer.Option(help="The same from a file; - is stdin.")]


def read_input(path: Path) -> bytes:
    """The bytes of a file, of a bundled sample that is named as in the repository, or of standard
    input for `-`."""
    if path != STDIN:
        return to_path(find_data(str(path))).read_bytes()
    if sys.stdin is None:
        raise BytelmError("- means standard input, which is closed")
    reminder = threading.Timer(REMIND_SECONDS, note, ["waiting for the end of standard input"])
    reminder.daemon = True
    reminder.start()
    try:
        return sys.stdin.buffer.read()
    finally:
        reminder.cancel()


def note_packed(path: Path, data: bytes) -> None:
    """Say of a compressed text that it is taken as it stands, unlike the data of `bytelm eval`."""
    from bytelm.data.sources.streams import compression_of_pipe

    if (kind := compression_of_pipe(data)) is not None:
        name = "standard input" if path == STDIN else path
        note(f"{name} is {kind.name} data, which this command takes as it stands: not unpacked")


def require_one_stdin(*paths: Path | None) -> None:
    """`BytelmError` if standard input is named twice."""
    if sum(path == STDIN for path in paths) > 1:
        raise BytelmError("standard input (-) can be read once only: give one of them as a file")


def given_text(name: str, text: str | None, file: Path | None) -> bytes | None:
    """What --NAME or --NAME-file gives; None if neither is given."""
    if text is not None and file is not None:
        raise BytelmError(f"give --{name} or --{name}-file, not both")
    if file is not None:
        return read_input(file)
    return None if text is None else os.fsencode(text)


def prompt_and_context(
    prompt: str | None, prompt_file: Path | None, context: str | None, context_file: Path | None
) -> tuple[bytes, bytes]:
    """The two texts, empty where nothing is given. Without a prompt, what is piped into the command
    is the prompt, unless the context is read from there."""
    require_one_stdin(prompt_file, context_file)
    begin = given_text("prompt", prompt, prompt_file)
    before = given_text("context", context, context_file)
    if begin is None and context_file != STDIN and is_piped():
        begin = read_input(STDIN)
    return begin or b"", before or b""


def is_piped() -> bool:
    """Whether standard input is a file or a pipe, not a terminal and not closed."""
    return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()
