"""How data is read, as one set of options for every command that reads any: which field of records,
what to do with what cannot be read, and how much a file may unpack to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.option_groups import Command, with_option_group
from bytelm.cli.output import note
from bytelm.data.settings import SETTINGS

if TYPE_CHECKING:
    from bytelm.data.sources import Reading

_LIMITS = "Limits of unpacking"


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The fields of `bytelm.data.Reading` that every command has. None: the default there."""

    field: Annotated[str, typer.Option(help=SETTINGS["field"])] = "text"
    raw: Annotated[bool, typer.Option("--raw", help=SETTINGS["raw"])] = False
    strict: Annotated[bool, typer.Option("--strict", help=SETTINGS["strict"])] = False
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help=SETTINGS["skip_errors"])] = (
        False
    )
    max_unpacked: Annotated[
        str | None, typer.Option(help=SETTINGS["max_unpacked"], rich_help_panel=_LIMITS)
    ] = None
    max_ratio: Annotated[
        float | None, typer.Option(help=SETTINGS["max_ratio"], rich_help_panel=_LIMITS)
    ] = None
    max_nesting: Annotated[
        int | None, typer.Option(help=SETTINGS["max_nesting"], rich_help_panel=_LIMITS)
    ] = None
    max_members: Annotated[
        int | None, typer.Option(help=SETTINGS["max_members"], rich_help_panel=_LIMITS)
    ] = None
    max_window: Annotated[
        str | None, typer.Option(help=SETTINGS["max_window"], rich_help_panel=_LIMITS)
    ] = None

    def reading(self, **more: Any) -> "Reading":
        """What they say, with further fields of `Reading`. `BytelmError` for a limit below 1."""
        from bytelm.data.sources import Reading
        from bytelm.data.sources.limits import limits_of

        limits = limits_of(
            max_unpacked=self.max_unpacked,
            max_ratio=self.max_ratio,
            max_nesting=self.max_nesting,
            max_members=self.max_members,
            max_window=self.max_window,
        )
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
