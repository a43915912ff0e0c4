"""`open_source`: one source of whatever names documents: paths, patterns, lists, other sources."""

from pathlib import Path

from bytelm.data.sources.base import ManySource, Reading, Source
from bytelm.data.sources.executables import SectionSource
from bytelm.data.sources.pipes import STDIN, PipeSource, is_pipe
from bytelm.data.sources.places import places_of
from bytelm.errors import DataError
from bytelm.paths import to_path


def open_source(spec: object, *, reading: Reading | None = None) -> Source:
    """The source that reads `spec`: a `Source`, a path, a folder, a built corpus, a glob pattern, a
    pipe, "-" for standard input, "hf:NAME?split=train&config=en" for a Hugging Face data set, or a
    list of these.

    A folder is read recursively in sorted order; each file in it by its own kind. What is found and
    not read is in `reading.notes`. Raises `DataError` for a path that does not exist, with the
    nearest name that does.

    >>> from bytelm.data.sources import MemorySource
    >>> [d.data for d in open_source([MemorySource([b"x"]), MemorySource([b"y"])])]
    [b'x', b'y']
    """
    reading = reading or Reading()
    source = _open(spec, reading=reading)
    if reading.sections == "whole":
        return source
    return SectionSource(source, reading.sections, reading)


def _open(spec: object, *, reading: Reading) -> Source:
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, list | tuple):
        return ManySource(tuple(_open(part, reading=reading) for part in spec))
    if not isinstance(spec, str | Path):
        raise DataError(
            f"a source is a path, a Source or a list of them, not {type(spec).__name__}"
        )
    if spec == STDIN or is_pipe(to_path(spec)):
        return PipeSource(spec, reading)
    return ManySource(tuple(place.source(reading) for place in places_of(spec, reading=reading)))
