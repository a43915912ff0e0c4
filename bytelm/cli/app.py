"""The command tree, and the one place where exceptions become exit codes.

Commands live in `bytelm/cli/*.py`; each module has `register(app)` and imports torch (and every
other heavy package) inside its functions, so that `bytelm --help` needs neither.
"""

import errno
import sys
from importlib import import_module

import typer

from bytelm.errors import BytelmError, printable
from bytelm.version import __version__

_GROUPS = ("train", "eval", "generate", "classify", "data", "tokenizer", "models")
_USERS_DISK = (  # what only the user can put right
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM),
    *(errno.EROFS, errno.ENOSPC, errno.EDQUOT),
)

app = typer.Typer(
    name="bytelm",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(args=argv, prog_name="bytelm")
    except (BytelmError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _USERS_DISK:
            raise
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
