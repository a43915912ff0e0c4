"""How commands report: `--json` prints one object on stdout, everything else goes to stderr."""

import json
import math
import sys
from typing import Any

from bytelm.errors import printable


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, one line, on stdout. JSON has no infinity: such figures, as the cost of an
    end that a model cannot predict, are null."""
    print(json.dumps(_finite(value), ensure_ascii=True, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(message: str) -> None:
    """A line for the person at the terminal; never mixed into a command's output. What the
    terminal could obey, in a file's name say, is escaped."""
    print(printable(message), file=sys.stderr)
