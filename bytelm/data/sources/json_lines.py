"""JSON lines (.jsonl, .ndjson), plain or compressed: one document per line that is not blank."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bytelm.data.sources.records import RecordFile
from bytelm.data.sources.streams import BROKEN, decompressed
from bytelm.errors import DataError

_MAX_LINE = 1 << 30


@dataclass(frozen=True)
class JsonLinesSource(RecordFile):
    """The records of a JSON lines file."""

    suffixes = tuple(
        f".{kind}{packed}"
        for kind in ("jsonl", "ndjson")
        for packed in ("", ".gz", ".bz2", ".xz", ".zst")
    )

    def rows(self) -> Iterator[tuple[str, Any]]:
        path = self.path
        try:
            with path.open("rb") as file, decompressed(file, path.name) as stream:
                number = 0
                while line := stream.readline(_MAX_LINE):
                    number += 1
                    if line.strip():
                        yield f"line {number}", _parse(line, where=f"{path}, line {number}")
        except BROKEN as error:
            raise DataError(f"{path} cannot be read: {error}") from error


def _parse(line: bytes, *, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
