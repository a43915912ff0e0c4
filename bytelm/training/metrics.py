"""`metrics.jsonl`: one JSON object per line, in step order, appended as training goes.

Three kinds of row: training (`loss`, `bits_per_byte`, ...), evaluation (`heldout_bits_per_byte`)
and alarms (`alarm`). On resume the file is cut back to the checkpoint's step, so that in the end it
equals an uninterrupted run's but for the fields in `TIMING`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bytelm.damage import one_line, parse_json
from bytelm.errors import CheckpointError
from bytelm.files import disk_errors, write_text

TIMING = ("bytes_per_second", "seconds", "cpu_seconds")  # fields that differ between two equal runs

Row = Mapping[str, Any]


class Metrics:
    """The open metrics file of a run; only rank 0 has one."""

    def __init__(self, path: Path, *, step: int, evaluated: int | None = None):
        """Open for appending after `step`; later rows, and a torn last line, are dropped.

        evaluated: the last step whose evaluation the checkpoint knows (default: `step`). Later ones
        are made again, so their rows are dropped.
        """
        self.path = path
        known = step if evaluated is None else evaluated
        kept = [
            row
            for row in (read_metrics(path) if path.exists() else ())
            if row["step"] <= (known if _is_evaluation(row) else step)
        ]
        write_text(path, "".join(_line(row) for row in kept))
        self._file = open(path, "ab", buffering=0)

    def write(self, row: Row) -> None:
        """Append one row, whole or not at all."""
        size = self._file.seek(0, os.SEEK_END)
        with disk_errors(self.path):
            line = _line(row).encode()
            try:
                if self._file.write(line) != len(line):
                    self._file.write(line[os.path.getsize(self.path) - size :])
            except OSError:
                os.truncate(self.path, size)
                raise

    def flush(self) -> None:
        """Make every row so far survive a crash of the machine."""
        with disk_errors(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a torn last line (from a kill) is left out."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            told = f"{path}, line {number} is not JSON: {one_line(str(error))}"
            raise CheckpointError(told) from None
        if not isinstance(row, dict):
            raise CheckpointError(f"{path}, line {number} is no row of figures, but {row!r:.99}")
        yield row


def _is_evaluation(row: Row) -> bool:
    return any(name.startswith("heldout_") for name in row)


def _line(row: Row) -> str:
    return json.dumps(dict(row), allow_nan=False) + "\n"
