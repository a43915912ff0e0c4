"""Files that somebody else wrote, or that were damaged: each gives what it should hold, or one
sentence.

`read_object` is how JSON is read, and `malformed` stands around whatever takes a parsed file apart.
So a reader may go by the shape that a sound file has, and need not ask at each step whether it is
there: what Python or a library raises where it is not becomes the error that names the file.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bytelm.errors import BytelmError, CheckpointError, DataError

LARGEST_OBJECT = 64 << 20  # bytes of JSON; parsed it takes about ten times as much memory
_SPARSE_IDS = 1 << 20  # a table of so many ids is small however few of them are used
_LONGEST_REASON, _LONGEST_ERROR = 200, 1000  # characters of a message that files have a part in


def read_object(
    path: Path,
    what: str,
    *,
    largest: int = LARGEST_OBJECT,
    error: type[BytelmError] = CheckpointError,
) -> dict[str, Any]:
    """The JSON object in a file that should hold `what`.

    Raises `error` if it holds anything else or more than `largest` bytes, and `OSError` if it
    cannot be read.
    """
    size = path.stat().st_size
    if size > largest:
        raise error(f"{path} has {size:,} bytes, and {what} at most {largest:,}")
    try:
        value = parse_json(path.read_bytes())
    except ValueError as found:
        raise error(f"{path} is not JSON of {what}: {reason(found)}") from None
    if not isinstance(value, dict):
        raise error(f"{path} holds a {type(value).__name__}, not a JSON object: no {what}")
    return value


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text; `ValueError` if it is none, nested too deeply or not UTF-8.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ...
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def gunzip(data: bytes, *, largest: int = LARGEST_OBJECT) -> bytes:
    """What a gzip file holds, or the data itself if it is none; `ValueError` if it is damaged or
    holds more than `largest` bytes.

    >>> gunzip(b"plain")
    b'plain'
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its gzip stream is damaged: {error}") from None
    if len(found) > largest:
        raise ValueError(f"it unpacks to more than {largest:,} bytes")
    return found


@contextmanager
def malformed(
    place: object, what: str, *, error: type[BytelmError] = CheckpointError
) -> Iterator[None]:
    """Turn whatever is raised inside into `error`: the file at `place` is not `what`.

    Errors of ours stay what they are, in one line of bounded length. Broken invariants of ours
    (`AssertionError`) pass, and so does a file that is not there or may not be read.

    >>> with malformed("a.json", "a vocabulary"):
    ...     {"vocab": 1}["merges"]
    Traceback (most recent call last):
    ...
    bytelm.errors.CheckpointError: a.json is not a vocabulary, or is damaged: it has no 'merges'
    """
    try:
        yield
    except (AssertionError, FileNotFoundError, PermissionError):
        raise
    except BytelmError as found:
        text = str(found)
        if (short := one_line(text, longest=_LONGEST_ERROR)) == text:
            raise
        raise error(short) from found
    except Exception as found:  # a wrong shape makes Python and libraries raise nearly every type
        raise error(f"{place} is not {what}, or is damaged: {reason(found)}") from found
    except BaseException as found:
        if type(found).__name__ != "PanicException":  # what a failed check in Rust becomes
            raise
        raise error(f"{place} is not {what}, or is damaged: {reason(found)}") from found


def reason(error: BaseException) -> str:
    """Why, in one line: the message of an exception, with its type where it would say too little.

    >>> reason(KeyError("vocab")), reason(MemoryError())
    ("it has no 'vocab'", 'it asks for more memory than there is')
    """
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # of pydantic
        wrong = ((".".join(map(str, item["loc"])), item["msg"]) for item in error.errors())
        return one_line("; ".join(f"{name}: {told}" for name, told in wrong))
    told = one_line(str(error))
    if isinstance(error, KeyError):
        return f"it has no {told}"
    if isinstance(error, ValueError | OSError | RuntimeError) and told:
        return told
    return f"{type(error).__name__}: {told}"


def one_line(text: str, *, longest: int = _LONGEST_REASON) -> str:
    """The text without line breaks, its middle left out if it is long.

    >>> one_line("a\\n  b"), len(one_line("x" * 5000))
    ('a b', 200)
    """
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    head = (longest - 5) * 2 // 3
    return f"{line[:head]} ... {line[len(line) - (longest - 5 - head) :]}"


def id_count(ids: Iterable[int]) -> int:
    """Ids that a table must hold, one more than the largest of `ids`; `DataError` where one
    is no integer, negative, or far beyond their number, as only damage makes it.

    >>> id_count([0, 5, 7])
    8
    """
    numbers = list(ids)
    most = max(_SPARSE_IDS, 16 * len(numbers))
    wrong = [i for i in numbers if type(i) is not int or not 0 <= i < most]
    if wrong:
        raise DataError(f"its vocabulary of {len(numbers):,} tokens has the id {wrong[0]!r}")
    return max(numbers, default=-1) + 1


def distinct_ids(ids: Mapping[str, int]) -> None:
    """`DataError` where two tokens have one id: a table of ids holds one of them, and loses the
    other without a word.

    >>> distinct_ids({"a": 0, "b": 1, "c": 0})
    Traceback (most recent call last):
    ...
    bytelm.errors.DataError: its vocabulary gives the id 0 to both 'a' and 'c'
    """
    names: dict[int, str] = {}
    for name, i in ids.items():
        if names.setdefault(i, name) != name:
            raise DataError(f"its vocabulary gives the id {i} to both {names[i]!r} and {name!r}")
