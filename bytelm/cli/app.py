"""The command tree, and the one place where exceptions become exit codes.

Commands live in `bytelm/cli/*.py`; each module has `register(app)` and imports torch (and every
other heavy package) inside its functions, so that `bytelm --help` needs neither.
"""

import sys
from importlib import import_module

import click
import typer

from bytelm.errors import BytelmError

_GROUPS = ("train", "eval", "generate", "data", "tokenizer", "models")

app = typer.Typer(
    name="bytelm",
    help="Byte-level language models: train, evaluate, generate, convert. Any bytes in.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _group in _GROUPS:
    import_module(f"bytelm.cli.{_group}").register(app)


def run(argv: list[str] | None = None) -> None:
    """Run the command line: 0 on success, 2 on a user's mistake, 1 on anything else."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    command = typer.main.get_command(app)
    try:
        status = command.main(args=argv, prog_name="bytelm", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(1)
    except (BytelmError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
