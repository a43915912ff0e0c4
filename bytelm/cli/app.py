"""The command tree, and the one place where exceptions become exit codes.

Commands live in `bytelm/cli/*.py`; each module has `register(app)` and imports torch (and every
other heavy package) inside its functions, so that `bytelm --help` needs neither.
"""

import difflib
import errno
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from bytelm.cli.output import end_quietly, note
from bytelm.errors import BytelmError
from bytelm.version import __version__

_GROUPS = (
    *("train", "eval", "generate", "score", "chunks", "classify", "fill"),
    *("data", "tokenizer", "models", "plot", "export"),
)
_USERS_DISK = (  # what only the user can put right
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM),
    *(errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP),
)


class _Commands(TyperGroup):
    """A reader that has seen enough (`| head`) ends a command, and is no error. A value that is not
    one of several is told which it is nearest to."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _until_written():  # --help and --version of the application itself print here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _until_written():
                return super().invoke(ctx)
        except Exception as error:
            message = getattr(error, "message", None)
            if hasattr(error, "format_message") and isinstance(message, str):
                setattr(error, "message", _with_nearest(message))  # noqa: B010
            raise


@contextmanager
def _until_written() -> Iterator[None]:
    """Write all that is printed; leave with status 0 when its reader has gone."""
    try:
        try:
            yield
        except typer.Exit:
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        end_quietly()
        raise typer.Exit(0) from None


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _with_nearest(message: str) -> str:
    """The message of a mistaken value with the nearest one that is allowed.

    >>> _with_nearest("'bays' is not one of 'bayes', 'switch'.")
    "'bays' is not one of 'bayes', 'switch'; did you mean 'bayes'?"
    """
    message = message.removeprefix("Value error, ")
    if not (found := re.fullmatch(r"'(.*)' is not one of (('[^']*'(, )?)+)\.?", message)):
        return message
    near = difflib.get_close_matches(found[1], re.findall(r"'([^']*)'", found[2]), n=1)
    return message.removesuffix(".") + (f"; did you mean {near[0]!r}?" if near else ".")


app = typer.Typer(
    name="bytelm",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": max(80, shutil.get_terminal_size().columns),
    },
)
for _group in _GROUPS:
    import_module(f"bytelm.cli.{_group}").register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"bytelm {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Byte-level language models: train, evaluate, generate, convert. Any bytes in."""


def run(argv: list[str] | None = None) -> None:
    """Run the command line: 0 on success, 2 on a user's mistake, 1 on anything else."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed by the caller
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(args=argv, prog_name="bytelm")
    except BytelmError as error:
        note(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno not in _USERS_DISK:
            raise
        place = f"{_text(error.filename)}: " if error.filename is not None else ""
        note(f"error: {place}{error.strerror}")
        sys.exit(2)


def _text(name: Any) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
