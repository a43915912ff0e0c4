"""How commands report: `--json` prints one object on stdout, everything else goes to stderr.

Bytes that a model wrote go to a file or pipe as they are. A terminal obeys some of them (it can be
made to move the cursor, rename its window, even to answer), so there, and in every message that
quotes a file name, what is not printable is written as an escape.
"""

import codecs
import json
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

from bytelm.errors import printable


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, one line, on stdout. JSON has no infinity: such figures, as the cost of an
    end that a model cannot predict, are null."""
    print(json.dumps(_finite(value), ensure_ascii=True, allow_nan=False))


def json_of_bytes(data: bytes) -> dict[str, Any]:
    """Bytes in JSON: `text` where they are UTF-8 (else null), `base64` and `bytes` (how many).

    >>> json_of_bytes(b"a\\xff")
    {'text': None, 'base64': 'Yf8=', 'bytes': 2}
    """
    import base64

    try:
        text: str | None = data.decode()
    except UnicodeDecodeError:
        text = None
    return {"text": text, "base64": base64.b64encode(data).decode(), "bytes": len(data)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(message: str) -> None:
    """A line for the person at the terminal; never mixed into a command's output."""
    if sys.stderr is not None:
        print(printable(message), file=sys.stderr, flush=True)


def printable_bytes(data: bytes) -> str:
    """Bytes as text for a terminal: what is no UTF-8, or not printable, is escaped.

    >>> print(printable_bytes(b"\\xc3\\xa9\\xff\\x07"))
    é\\xff\\x07
    """
    return printable(data.decode("utf-8", errors="backslashreplace"))


def write_bytes(pieces: Iterable[bytes]) -> None:
    """Bytes to stdout as they come: as they are, or escaped on a terminal."""
    if sys.stdout.isatty():
        _write_to_terminal(pieces)
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _write_to_terminal(pieces: Iterable[bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")
    for piece in pieces:  # a character may come in several pieces
        sys.stdout.write(printable(decoder.decode(piece)))
        sys.stdout.flush()
    print(printable(decoder.decode(b"", final=True)))


def end_quietly() -> None:
    """Let nothing more be written to a stdout whose reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
