"""How commands report: `--json` prints one object on stdout, everything else goes to stderr."""

import json
import sys
from typing import Any


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, one line, on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=True, allow_nan=False)
    sys.stdout.write("\n")


def note(message: str) -> None:
    """A line for the person at the terminal; never mixed into a command's output."""
    print(message, file=sys.stderr)
