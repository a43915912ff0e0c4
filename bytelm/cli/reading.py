"""How data is read, as one set of options for every command that reads any: which field of records,
what to do with what cannot be read, and how much a file may unpack to."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.option_groups import Command, with_option_group
from bytelm.cli.output import note
from bytelm.errors import BytelmError

if TYPE_CHECKING:
    from bytelm.data.sources import Reading

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LIMITS = "Limits of unpacking"


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The fields of `bytelm.data.Reading` that every command has. None: the default there."""

    field: Annotated[str, typer.Option(help="JSON or column name that holds a record's text.")] = (
        "text"
    )
    raw: Annotated[
        bool, typer.Option("--raw", help="Take every file as it stands, archives and records too.")
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Links, files that are not what their name says, and whatever else would be "
            "reported as skipped are errors.",
        ),
    ] = False
    skip_errors: Annotated[
        bool,
        typer.Option(
            "--skip-errors",
            help="Leave out what is damaged, encrypted or beyond a limit, and report it.",
        ),
    ] = False
    max_unpacked: Annotated[
        str | None,
        typer.Option(help="What one file may unpack to; default: 1TiB.", rich_help_panel=_LIMITS),
    ] = None
    max_ratio: Annotated[
        float | None,
        typer.Option(
            help="Bytes out to bytes in, beyond the first 256 MiB; default: 250.",
            rich_help_panel=_LIMITS,
        ),
    ] = None
    max_nesting: Annotated[
        int | None,
        typer.Option(help="Archives in archives; default: 4.", rich_help_panel=_LIMITS),
    ] = None
    max_members: Annotated[
        int | None,
        typer.Option(help="Files in an archive; default: 10 million.", rich_help_panel=_LIMITS),
    ] = None
    max_window: Annotated[
        str | None,
        typer.Option(help="Memory of a zstd frame; default: 2GiB.", rich_help_panel=_LIMITS),
    ] = None

    def reading(self, **more: Any) -> "Reading":
        """What they say, with further fields of `Reading`. `BytelmError` for a limit below 1."""
        from bytelm.data.sources import Limits, Reading

        given: dict[str, Any] = {
            "unpacked_bytes": None if self.max_unpacked is None else to_bytes(self.max_unpacked),
            "ratio": self.max_ratio,
            "nesting": self.max_nesting,
            "members": self.max_members,
            "window_bytes": None if self.max_window is None else to_bytes(self.max_window),
        }
        limits = Limits(**{name: value for name, value in given.items() if value is not None})
        return Reading(
            field=self.field,
            raw=self.raw,
            strict=self.strict,
            skip_errors=self.skip_errors,
            limits=limits,
            **more,
        )


def with_reading_options(command: Command) -> Command:
    """The command with one option per field of `ReadingOptions` in place of its `reading`."""
    return with_option_group(command, parameter="reading", group=ReadingOptions)


def tell(reading: "Reading") -> None:
    """Say on stderr what was skipped, or taken otherwise than its name says."""
    for line in reading.notes.lines():
        note(line)


def to_bytes(text: str) -> int:
    """Bytes from `2GiB`, `500m` or `1000000`.

    >>> to_bytes("2GiB"), to_bytes("1.5k")
    (2147483648, 1536)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise BytelmError(f"expected a size such as 2GiB or 500M, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])
